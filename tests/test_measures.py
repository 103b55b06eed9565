"""Measures of surfaces against closed forms, plain loops and gudhi, and what must hold for every surface."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import xarray

from gruland.landscape.measures import (
    MEASURES,
    convex_share,
    count_minima,
    flat_area,
    flat_area_curve,
    loss_gap,
    minima,
    ripple,
    roughness,
)


def surface_of(loss, size=13, extent=1.0, rows=None, origin=None):
    """A surface of a function of (alpha, beta), or of the losses themselves; ``rows`` 1 is a line."""
    values = np.asarray(loss, dtype=float) if not callable(loss) else None
    rows, columns = values.shape if values is not None else (rows or size, size)
    alpha = np.linspace(-extent, extent, columns)
    beta = np.linspace(-extent, extent, rows) if rows > 1 else np.zeros(1)
    if values is None:
        values = loss(*np.meshgrid(alpha, beta)) + np.zeros((rows, columns))
    attributes = {} if origin is None else {"origin_loss": origin}
    return xarray.Dataset(
        {"loss": (("beta", "alpha"), values), "done": (("beta", "alpha"), np.ones(values.shape, bool))},
        {"alpha": alpha, "beta": beta},
        attributes,
    )


def bowl(x, y, a=3.0, b=1.0, c=0.5):
    """1 + a x^2 / 2 + c x y + b y^2 / 2."""
    return 1 + (a * x**2 + 2 * c * x * y + b * y**2) / 2


def with_cells(surface, cells):
    """The same with other losses at (row, column)."""
    changed = surface.copy(deep=True)
    for cell, loss in cells.items():
        changed["loss"].values[cell] = loss
    return changed


# -- area


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("size", [13, 25])
def test_flat_area_of_a_bowl_is_that_of_its_ellipse(threshold, size):
    # a x^2 + 2 c x y + b y^2 <= 2 t encloses 2 pi t / sqrt(a b - c^2), of a square of 4.
    expected = 2 * math.pi * threshold / math.sqrt(3 - 0.25) / 4
    surface = surface_of(bowl, size)
    assert flat_area(surface, threshold) == pytest.approx(expected, rel=0.005)


def test_counting_the_cells_alone_is_off_by_more_than_the_interpolated_area_ever_is():
    surface = surface_of(bowl)
    counted = [(surface["loss"].values - 1 <= t).mean() for t in (0.05, 0.1, 0.3)]
    expected = [2 * math.pi * t / math.sqrt(2.75) / 4 for t in (0.05, 0.1, 0.3)]
    assert np.abs(np.divide(counted, expected) - 1).max() > 0.05


def test_flat_area_within_a_disc_does_not_depend_on_the_extent():
    inside = [flat_area(surface_of(bowl, size, e), 0.1, radius=0.9) for size, e in ((13, 1.0), (31, 2.5))]
    expected = 2 * math.pi * 0.1 / math.sqrt(2.75) / (math.pi * 0.81)
    assert inside == pytest.approx([expected] * 2, rel=0.01)
    # A cone's disc of radius t within the disc of radius 1.
    assert flat_area(surface_of(np.hypot, 41), 0.5, radius=1.0) == pytest.approx(0.25, rel=0.01)


def test_flat_area_of_a_smooth_surface_that_is_no_quadratic():
    # 1 - cos(2 x) cos(y) on 13 x 13 against a million points of the function itself.
    def loss(x, y):
        return 1 - np.cos(2 * x) * np.cos(y)

    fine = surface_of(loss, 1001)["loss"].values
    for threshold in (0.1, 0.5):
        expected = (fine <= threshold).mean()
        assert flat_area(surface_of(loss), threshold) == pytest.approx(expected, rel=0.01)


def test_flat_area_of_a_line_and_of_a_rectangle():
    line = surface_of(lambda x, y: x**2, rows=1)
    assert flat_area(line, 0.25) == pytest.approx(0.5, abs=0.005)
    assert flat_area(line, 0.04, radius=0.5) == pytest.approx(0.4, abs=0.01)
    assert flat_area(surface_of(lambda x, y: 0.5 + 0 * x), 0.0) == 1  # at most, not less than
    rectangle = surface_of(lambda x, y: x + 0 * y, 13).isel(beta=slice(4, 9))
    assert flat_area(rectangle, 0.5) == pytest.approx(0.75, abs=0.005)


def test_flat_area_curve_is_a_distribution_function():
    surface = surface_of(lambda x, y: 2 - x - 0.5 * y**3)
    thresholds = [-5, -0.5, 0, 0.1, 1, 5]
    curve = flat_area_curve(surface, thresholds)
    assert curve.tolist() == [flat_area(surface, t) for t in thresholds]
    assert (np.diff(curve) >= 0).all()
    assert (curve[0], curve[-1]) == (0, 1)
    assert curve[2] == pytest.approx(0.5, abs=0.005)  # as much below the centre as above it


@pytest.mark.parametrize("measure", [flat_area, loss_gap])
def test_excess_is_over_the_unmoved_model(measure):
    plain = measure(surface_of(bowl))
    assert measure(surface_of(lambda x, y: bowl(x, y) + 7)) == pytest.approx(plain)
    assert measure(surface_of(bowl, origin=1.0)) == pytest.approx(plain)
    assert measure(surface_of(bowl, origin=math.nan)) == pytest.approx(plain)  # not known
    # No cell lies at the origin of an even grid, and an evaluated one does not count beside the attribute.
    assert measure(surface_of(bowl, 14, origin=1.0)) == pytest.approx(plain, rel=0.01)
    moved = with_cells(surface_of(bowl, origin=1.0), {(6, 6): 5.0})
    assert measure(moved) == pytest.approx(plain, abs=0.05)


def test_the_table_needs_numpy_alone():
    code = "import sys, gruland.landscape.measures; print({'torch', 'xarray', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("turned", ["transposed", "mirrored"])
def test_measures_do_not_depend_on_which_axis_is_which(name, turned):
    values = np.random.default_rng(0).normal(size=(11, 11)).cumsum(0).cumsum(1) / 30
    other = values.T if turned == "transposed" else values[::-1, ::-1]
    one, two = (MEASURES[name](surface_of(v)) for v in (values, other))
    assert one == pytest.approx(two, rel=1e-3)


def test_a_cliff_does_not_pull_down_the_plain_beside_it():
    # A spline would swing below the plain and call it flat.
    surface = surface_of(lambda x, y: np.where(x > 0.6, 500.0, 0.2 * (abs(x) + abs(y) > 0.01)), origin=0.0)
    assert flat_area(surface, -0.001) == 0
    assert flat_area(surface, 0.21) == pytest.approx(9 / 12, abs=0.01)  # the plain ends at 1/2


@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf])
def test_cells_that_are_not_finite_are_infinitely_high(wild):
    walled = with_cells(surface_of(lambda x, y: 0 * x), dict.fromkeys(np.ndindex(13, 13), wild))
    walled["loss"].values[3:10, 3:10] = 0.0
    # What lies between a finite and an infinite cell is infinite: 6 of 12 intervals a side are left.
    assert flat_area(walled, 10.0) == pytest.approx(0.25, abs=1e-9)
    assert loss_gap(walled, 0.5) == pytest.approx(0)
    assert loss_gap(walled, 0.8) == math.inf
    assert roughness(walled) == ripple(walled) == math.inf
    assert convex_share(walled) == pytest.approx(25 / 121)
    assert [m.persistence for m in minima(walled)] == [math.inf]
    # One such cell takes convexity from its neighbours alone.
    assert convex_share(with_cells(surface_of(bowl), {(4, 7): wild})) == pytest.approx(1 - 9 / 121)


def test_finite_but_huge_losses_break_nothing():
    surface = with_cells(surface_of(bowl), {(0, 0): 1e300, (0, 12): -1e300, (12, 3): 1e308})
    for name, measure in MEASURES.items():
        assert not math.isnan(measure(surface)), name
    assert flat_area(surface, 0.1, radius=0.5) == pytest.approx(flat_area(surface_of(bowl), 0.1, radius=0.5))


@pytest.mark.parametrize("radius", [0.3, 1.0])
def test_loss_gap_of_a_quadratic(radius):
    expected = radius**2 * (3 + 1) / 4
    assert loss_gap(surface_of(bowl), radius) == pytest.approx(expected)
    assert loss_gap(surface_of(bowl, rows=1), radius) == pytest.approx(radius**2 * 3 / 2)
    assert loss_gap(surface_of(lambda x, y: x**2 + x, rows=1), radius) == pytest.approx(radius**2)
    rectangle = surface_of(bowl, 13, 2.0).isel(alpha=slice(3, 10))
    assert loss_gap(rectangle, radius) == pytest.approx(expected)


# -- shape


@pytest.mark.parametrize("size", [5, 13, 40])
def test_roughness_of_a_quadratic_is_the_norm_of_its_hessian(size):
    assert roughness(surface_of(bowl, size)) == pytest.approx(math.sqrt(3**2 + 1 + 2 * 0.5**2))
    assert roughness(surface_of(bowl, size, rows=1)) == pytest.approx(3)
    assert roughness(surface_of(bowl, size, rows=7)) == pytest.approx(math.sqrt(3**2 + 1 + 2 * 0.5**2))
    assert roughness(surface_of(lambda x, y: 5 + 2 * x - y, size)) == pytest.approx(0, abs=1e-9)


def test_roughness_does_not_depend_on_the_grid_or_the_axes_where_the_surface_is_smooth():
    def loss(x, y, angle=0.0):
        u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
        return -np.exp(-2 * (u**2 + 3 * v**2))

    values = [roughness(surface_of(loss, size, 2.0)) for size in (41, 81, 161)]
    assert values == pytest.approx([values[-1]] * 3, rel=0.03)
    turned = roughness(surface_of(lambda x, y: loss(x, y, 0.6), 161, 2.0))
    assert turned == pytest.approx(values[-1], rel=0.002)


def test_a_ripple_adds_its_curvature_to_the_roughness():
    # Whole periods of A sin(k x) on the interior: the second difference is -A (2 - 2 cos(k h)) / h^2 sin(k x).
    size, amplitude, k = 81, 0.01, 8 * math.pi
    h = 2 / (size - 1)
    wrinkled = surface_of(lambda x, y: bowl(x, y) + amplitude * np.sin(k * x), size)
    second = amplitude * (2 - 2 * math.cos(k * h)) / h**2
    assert second == pytest.approx(amplitude * k**2, rel=0.04)
    squares = 3**2 + 1 + 2 * 0.5**2 + second**2 / 2
    assert roughness(wrinkled) == pytest.approx(math.sqrt(squares), rel=0.01)
    assert roughness(wrinkled) > 1.5 * roughness(surface_of(bowl, size))


def test_ripple_is_zero_for_quadratics_however_narrow():
    for surface in (
        surface_of(bowl),
        surface_of(lambda x, y: bowl(x, y, 3000, 10, -70)),
        surface_of(bowl, rows=1),
    ):
        assert ripple(surface) == pytest.approx(0, abs=1e-12)
    assert ripple(surface_of(lambda x, y: 0.1 + 0 * x)) == 0
    assert (
        ripple(surface_of(lambda x, y: np.where(x > y, 0.1, np.nextafter(0.1, 1)))) == 0
    )  # but for rounding


def test_ripple_is_what_local_least_squares_leave_over():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(9, 11))
    surface = surface_of(values)  # rows 1/4 apart, columns 1/5
    y, x = np.mgrid[-2:3, -3:4].reshape(2, -1)
    design = np.stack([x**0, x, y, x * x, x * y, y * y], 1).astype(float)
    rest = []
    for row in range(2, 7):
        for column in range(3, 8):
            around = values[row - 2 : row + 3, column - 3 : column + 4].ravel()
            fitted = np.linalg.lstsq(design, around, rcond=None)[0]
            rest.append(values[row, column] - fitted[0])
    expected = np.sqrt(np.square(rest).mean()) / values.std()
    assert ripple(surface, reach=0.55) == pytest.approx(expected)


@pytest.mark.parametrize("k", [0.3, 1.0, 2.5])
def test_ripple_of_a_sine_is_what_savitzky_and_golay_s_filter_takes_away(k):
    # Weights -3, 12, 17, 12, -3 over 35 of five points; k is in radians for each cell.
    passed = (17 + 24 * math.cos(k) - 6 * math.cos(2 * k)) / 35
    columns = np.arange(2000)
    line = np.sin(k * columns)[None]
    assert ripple(surface_of(line), reach=1e-3) == pytest.approx(1 - passed, rel=0.01)
    plane = np.repeat(line[:, :600], 7, axis=0)
    assert ripple(surface_of(plane), reach=1e-3) == pytest.approx(1 - passed, rel=0.01)


def test_ripple_separates_wrinkles_from_steepness_and_ignores_the_scale():
    smooth = surface_of(lambda x, y: np.cosh(x) + np.cosh(2 * y), 25)
    wrinkled = surface_of(lambda x, y: np.cosh(x) + np.cosh(2 * y) + 0.05 * np.sin(20 * x), 25)
    assert ripple(wrinkled) > 5 * ripple(smooth)
    scaled = wrinkled.assign(loss=40 * wrinkled["loss"] + 3)
    assert ripple(scaled) == pytest.approx(ripple(wrinkled))


@pytest.mark.parametrize(
    ("loss", "share"),
    [
        (bowl, 1.0),
        (lambda x, y: x**2 - y**2, 0.0),
        (lambda x, y: x * y, 0.0),
        (lambda x, y: 0.1 * x + 0.3 * y - 5, 1.0),
        (lambda x, y: (x + y) ** 2, 1.0),
        (lambda x, y: -(x**2) - y**2, 0.0),
        (lambda x, y: bowl(x, y, c=1.8), 0.0),  # a b < c^2, though both axes curve upwards
        (lambda x, y: 0.2 + 0 * x, 1.0),
    ],
)
def test_convex_share_of_quadratics(loss, share):
    assert convex_share(surface_of(loss)) == share


def test_convex_share_of_a_sine_is_half():
    # Off the zeros, so that no cell's sign is one of rounding.
    surface = surface_of(lambda x, y: np.sin(math.pi * (4 * x + 0.1)) + 0 * y, 82)
    assert convex_share(surface) == pytest.approx(0.5, abs=0.01)
    line = surface_of(lambda x, y: np.sin(math.pi * (4 * x + 0.1)), 82, rows=1)
    assert convex_share(line) == convex_share(surface)
    # x^4 / 12 - x^2 / 8 + y^2 is convex where x^2 >= 1/4, a central difference's x^2 + h^2 / 6 >= 1/4.
    quartic = surface_of(lambda x, y: x**4 / 12 - x**2 / 8 + y**2, 41)
    inner = np.linspace(-1, 1, 41)[1:-1]
    assert convex_share(quartic) == pytest.approx((inner**2 + 0.05**2 / 6 >= 0.25).mean())


# -- minima


def test_two_wells_and_the_pass_between_them():
    values = np.full((5, 7), 9.0)
    values[2, 1:6] = [1.0, 4.0, 6.0, 3.0, 2.0]
    deep, shallow = minima(surface_of(values))
    assert tuple(deep) == pytest.approx((-2 / 3, 0.0, 1.0, math.inf, False))
    assert tuple(shallow) == pytest.approx((2 / 3, 0.0, 2.0, 4.0, False))
    assert [count_minima(surface_of(values), p) for p in (4.0, 4.01, 1e-9)] == [2, 1, 2]


def test_wells_that_touch_at_a_corner_are_one():
    values = np.full((4, 4), 9.0)
    values[1, 1], values[2, 2] = 1.0, 2.0
    assert len(minima(surface_of(values))) == 1


def test_a_ring_round_a_peak_is_one_minimum_and_a_plain_counts_once():
    ring = surface_of(lambda x, y: np.round((np.hypot(x, y) - 0.6) ** 2, 1), 21)
    assert len(minima(ring)) == 1
    (everywhere,) = minima(surface_of(lambda x, y: 0.5 + 0 * x))
    assert everywhere[:4] == (0, 0, 0.5, math.inf)  # the cell nearest to the centre
    two = np.array([[3, 1, 1, 2, 1, 1, 3.0]] * 3)
    assert [m.persistence for m in minima(surface_of(two))] == [math.inf, 1.0]


def test_persistences_of_a_wave_on_a_line():
    values = np.array([[5, 1, 4, 0, 3, 2, 6.0]])
    found = [(round(m.alpha, 3), m.loss, m.persistence) for m in minima(surface_of(values))]
    assert found == [(0, 0, math.inf), (-0.667, 1, 3), (0.667, 2, 1)]


def test_minima_on_the_rim_are_told_apart():
    slope = surface_of(lambda x, y: x + 0.1 * y**2)
    (lowest,) = minima(slope)
    assert lowest.rim
    assert (lowest.alpha, lowest.beta) == (-1, 0)
    assert (count_minima(slope), count_minima(slope, rim=True)) == (0, 1)
    line = surface_of(np.array([[1.0, 2.0, 0.0, 2.0, 1.5]]))
    assert [m.rim for m in minima(line)] == [False, True, True]
    assert count_minima(line) == 1


def test_walls_of_infinite_loss_part_basins():
    values = np.array([[1, np.nan, 5, 4, 5.0], [2, np.inf, 5, 3, 5], [2, -np.inf, 5, 6, 5]])
    found = minima(surface_of(values))
    assert [(m.loss, m.persistence) for m in found] == [(1, math.inf), (3, math.inf)]
    assert minima(surface_of(np.full((3, 3), np.nan))) == []


def sublevel_components(values, level):
    """The 8-connected components of the cells below a level."""
    from scipy.ndimage import label

    return label(values <= level, np.ones((3, 3)))[1]


@pytest.mark.parametrize("levels", [None, 6], ids=["distinct", "plateaus"])
def test_at_each_level_as_many_components_as_were_born_and_have_not_merged(levels):
    values = np.random.default_rng(4).normal(size=(12, 9))
    if levels:
        values = np.round(values * levels / 6) / levels
    found = minima(surface_of(values))
    for level in np.unique(values):
        alive = sum(m.loss <= level and not m.loss + m.persistence <= level + 1e-12 for m in found)
        assert alive == sublevel_components(values, level)


@pytest.mark.parametrize("kind", ["noise", "plateaus", "smooth", "infinite"])
def test_persistence_is_gudhi_s(kind):
    gudhi = pytest.importorskip("gudhi")
    rng = np.random.default_rng(5)
    for shape in ((15, 15), (6, 11), (1, 20)):
        values = rng.normal(size=shape)
        if kind == "plateaus":
            values = np.round(values)
        if kind == "smooth":
            values = values.cumsum(0).cumsum(1)
        if kind == "infinite":
            values[rng.random(shape) < 0.3] = np.inf
        tree = gudhi.CubicalComplex(top_dimensional_cells=values)
        tree.persistence(min_persistence=0)
        pairs = tree.persistence_intervals_in_dimension(0)
        expected = sorted((birth, death - birth) for birth, death in pairs if birth < death)
        found = sorted((m.loss, m.persistence) for m in minima(surface_of(values)))
        np.testing.assert_allclose(found, expected)


# -- the table, and what users see


def test_the_table_names_every_measure_and_its_settings():
    surface = surface_of(bowl)
    for name, measure in MEASURES.items():
        assert measure.function.__name__ == name
        assert measure.larger in ("flatter", "sharper", "smoother", "rougher")
        assert all((measure.title, measure.unit, measure.definition, measure.source))
        assert isinstance(measure(surface), float)
    settings = {"threshold": 0.2, "radius": 0.5, "persistence": 9.0, "rim": True, "reach": 0.5}
    assert MEASURES["flat_area"](surface, **settings) == flat_area(surface, 0.2, radius=0.5)
    assert MEASURES["loss_gap"](surface, **settings) == loss_gap(surface, 0.5)
    assert MEASURES["convex_share"](surface, **settings) == 1


def test_what_larger_means():
    flat, sharp = surface_of(bowl), surface_of(lambda x, y: bowl(3 * x, 3 * y))
    smooth = surface_of(lambda x, y: 1 - np.cos(x) * np.cos(y), 25)
    rough = surface_of(lambda x, y: 1 - np.cos(x) * np.cos(y) + 0.1 * np.sin(9 * x) * np.sin(8 * y), 25)
    signs = {"flatter": 1, "sharper": -1, "smoother": 1, "rougher": -1}
    for name, measure in MEASURES.items():
        one, two = (flat, sharp) if measure.larger in ("flatter", "sharper") else (smooth, rough)
        assert signs[measure.larger] * (measure(one) - measure(two)) > 0, name


def unfinished():
    surface = surface_of(bowl)
    surface["done"].values[2, 3:5] = False
    return surface


UNEVEN = surface_of(bowl).assign_coords(alpha=np.linspace(-1, 1, 13) ** 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flat_area(surface_of(bowl), radius=1.5), r"radius=1.5: expected a positive number up to 1,"),
        (lambda: flat_area(surface_of(bowl), radius=0), r"radius=0: expected a positive number"),
        (lambda: flat_area(surface_of(bowl), math.nan), r"thresholds \[nan\]: expected"),
        (lambda: loss_gap(surface_of(bowl, extent=0.5)), r"radius=1.0: .* up to 0.5,"),
        (lambda: loss_gap(surface_of(bowl, extent=2).isel(alpha=slice(6, 13))), r"radius=1.0: .* up to "),
        (lambda: flat_area(surface_of(bowl, 14)), r"neither an origin_loss nor a cell at alpha = beta = 0"),
        (lambda: loss_gap(surface_of(bowl, origin=math.inf)), r"the unmoved model's loss is inf: expected"),
        (lambda: loss_gap(surface_of(np.zeros((1, 1)))), r"radius=1.0: .* up to "),
        (lambda: roughness(UNEVEN), r"the surface's alpha is \[.*\]: expected rising, evenly spaced"),
        (lambda: flat_area(UNEVEN), r"expected rising, evenly spaced values"),
        (lambda: convex_share(surface_of(np.zeros((2, 9)))), r"2 x 9 cells: expected at least 3 on an axis"),
        (lambda: ripple(surface_of(np.zeros((3, 9)))), r"3 x 9 cells: expected at least 5 on an axis"),
        (lambda: ripple(surface_of(bowl), reach=1.2), r"reach=1.2: \(15, 15\) cells, expected no more than"),
        (lambda: ripple(surface_of(bowl), reach=0), r"reach=0: expected a positive number"),
        (lambda: count_minima(surface_of(bowl), 0.0), r"persistence=0.0: expected a positive number of nats"),
        *((lambda m=m: m(unfinished()), r"2 of 169 cells are not computed") for m in MEASURES.values()),
    ],
)
def test_what_cannot_be_measured_is_answered_with_a_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
