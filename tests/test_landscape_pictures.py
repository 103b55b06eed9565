"""Pictures of loss surfaces: what is drawn where, on which scale, and what the files hold."""

from __future__ import annotations

import io
import re
import zlib

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from gruland.landscape import (
    EXCESS_LEVELS,
    Scale,
    area_curves,
    bands,
    barrier_curves,
    contour_figure,
    contour_sheet,
    figure_3d,
    grid_sheet,
    interval_plot,
    linked_surfaces,
    minimum,
    spectra,
    surface_figure,
    surface_sheet,
    trajectory_figure,
    write,
    write_pictures,
)
from gruland.landscape.pictures import PICTURES, replicate_band
from gruland.landscape.pictures.marks import corners, label_places, readable
from gruland.landscape.pictures.scale import CATEGORIES, category

STEPS = np.linspace(-1, 1, 9)


def drawn(loss, alpha=STEPS, beta=STEPS, *, interpolated=False, done=True, **attributes):
    """A surface of a function of (alpha, beta)."""
    values = np.array([[float(loss(x, y)) for x in alpha] for y in beta])
    shape = ("beta", "alpha")
    return xr.Dataset(
        {
            "loss": (shape, values),
            "accuracy": (shape, np.full(values.shape, 0.8)),
            "loss_se": (shape, np.full(values.shape, 0.01)),
            "difference_se": (shape, np.full(values.shape, 0.005)),
            "interpolated": (shape, np.broadcast_to(interpolated, values.shape).copy()),
            "done": (shape, np.broadcast_to(done, values.shape).copy()),
        },
        {"alpha": alpha, "beta": beta},
        attributes,
    )


def valley(x, y):
    return 0.05 + 3 * (x - 0.25) ** 2 + y**2


def cliff(x, y):
    return valley(x, y) + 500 * max(0.0, x + y - 1.5)


def bowl(depth, width=1.0):
    return lambda x, y: depth + (x**2 + y**2) / width


def save(figure):
    """The figure as drawn; warnings are errors here."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


# -- the scale


def test_heights_are_linear_but_for_heavy_tails():
    scale = Scale.of(drawn(valley))
    assert scale.knee is None
    np.testing.assert_allclose(
        scale.height(np.array([0.1, 3.0, np.nan, -np.inf])), [0.05, 2.95, np.nan, np.nan]
    )
    scale = Scale.of(drawn(cliff))
    knee, top = scale.knee, scale.high
    assert scale.low < knee < top / 10
    # Nearly linear from the least loss to the knee, and equal steps for equal factors far above it.
    half = scale.height((scale.low + knee) / 2) / scale.height(knee)
    assert half == pytest.approx(0.5, abs=0.05)
    steps = np.diff(scale.height(scale.low + (knee - scale.low) * np.array([100.0, 1000.0, 10000.0])))
    np.testing.assert_allclose(steps, np.log(10), rtol=1e-3)
    assert "logarithmic above" in scale.label


LOSSES = {
    "valley": valley,
    "cliff": cliff,
    "flat": lambda x, y: 7 + 1e-6 * x,
    "negative": lambda x, y: x - 100 * y,
    "tiny": lambda x, y: 1e-9 * np.exp(9 * x),
    "far below": lambda x, y: -1e4 + np.exp(9 * x),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_levels_are_different_short_and_inside(loss):
    scale = Scale.of(drawn(loss))
    assert list(scale.levels) == sorted(scale.levels)
    assert 5 <= len(scale.levels) <= 15
    assert scale.low < scale.levels[0]
    assert scale.levels[-1] < scale.high
    assert 4 <= len(scale.ticks) <= len(scale.levels)
    texts = list(scale.texts(scale.levels).values())
    assert len(set(texts)) == len(texts)
    assert max(map(len, texts)) <= 10


def test_one_scale_holds_several_surfaces():
    one, two = drawn(valley), drawn(lambda x, y: 40 + x)
    scale = Scale.of(one, two)
    assert (scale.low, scale.high) == (one["loss"].min(), 41)
    limits = [
        contour_figure(surface, scale=scale).axes[0].collections[0].get_clim() for surface in (one, two)
    ]
    assert limits == [scale.limits] * 2


# -- one surface


def test_contours_mark_centre_and_minimum():
    surface = drawn(valley, normalization="filter", examples="1,000 training reviews")
    figure = contour_figure(surface, "zoneout 0.1")
    axes = figure.axes[0]
    centre, least = (line.get_xydata()[0].tolist() for line in axes.lines)
    assert centre == [0, 0]
    assert least == [0.25, 0] == list(minimum(surface))
    assert [line.get_label() for line in axes.lines] == ["trained weights: 0.237", "least loss: 0.0500"]
    assert figure.get_suptitle() == "zoneout 0.1\nfilter-normalized directions, 1,000 training reviews"
    assert len(axes.texts) > 3  # labels on the lines
    assert {text.get_text() for text in axes.texts} <= {f"{level:.12g}" for level in Scale.of(surface).levels}


def test_shading_has_the_loss_of_each_cell_on_a_grid_that_is_neither_square_nor_symmetric():
    alpha, beta = np.linspace(-0.5, 1.5, 6), np.linspace(0.25, 1, 4)
    surface = drawn(lambda x, y: x + 10 * y, alpha, beta, origin_loss=0.125)
    axes = save(contour_figure(surface)).axes[0]
    shading = axes.collections[0]
    np.testing.assert_allclose(shading.get_array(), surface["loss"] - surface["loss"].min())
    places = shading.get_coordinates()
    np.testing.assert_allclose(places[..., 0], np.broadcast_to(alpha, (4, 6)))
    np.testing.assert_allclose(places[..., 1], np.broadcast_to(beta[:, None], (4, 6)))
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 1.5), (0.25, 1))
    assert axes.lines[0].get_label() == "trained weights: 0.125"  # there is no such cell


def test_axes_are_named_after_the_surface_s_units():
    surface = drawn(valley, normalization="filter")
    assert contour_figure(surface).axes[0].get_xlabel() == "α: first direction (filter-normalized radius)"
    surface["alpha"].attrs.update(long_name="step along the first direction", units="unit-normalized radius")
    assert contour_figure(surface).axes[0].get_xlabel() == "α: first direction (unit-normalized radius)"
    surface["beta"].attrs.update(long_name="second principal component", units="distance")
    assert contour_figure(surface).axes[0].get_ylabel() == "β: second principal component (distance)"


def test_labels_keep_off_the_border_and_each_other():
    circles = [r * np.stack([np.cos(t := np.linspace(0, 7, 99)), np.sin(t)], axis=1) for r in (0.4, 0.5, 0.9)]
    border = np.array([[0.97, -1.0], [0.97, 1.0]])
    places = label_places([*circles, border, circles[0] * 0.1], np.array([-1, -1]), np.array([1, 1]))
    assert len(places) == 3
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), [0.4, 0.5, 0.9])
    apart = [np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]]
    assert min(apart) > 2 * 0.07
    assert np.abs(places).max() < 0.94
    labelled, beside = [[-0.6, 0.5], [-0.2, 0.5]], [[-0.6, 0.55], [-0.6, 1.0]]
    assert len(label_places([labelled, beside], np.array([-1, -1]), np.array([1, 1]))) == 1


def test_rectangles_of_cells_border_halfway_to_the_next():
    found = corners(np.array([0.0, 1.0, 3.0]), np.array([10.0, 20.0]))
    assert found.shape == (2, 3, 4, 2)
    assert found[1, 2].tolist() == [[2, 15], [4, 15], [4, 25], [2, 25]]
    assert found[0, 0].tolist() == [[-0.5, 5], [0.5, 5], [0.5, 15], [-0.5, 15]]


def test_cells_without_a_measured_loss_are_marked_as_what_they_are():
    done = np.ones((9, 9), bool)
    done[2, 3] = False
    interpolated = np.zeros((9, 9), bool)
    interpolated[4, [1, 5]] = True
    surface = drawn(valley, interpolated=interpolated, done=done)
    surface["loss"].values[2, 3] = np.nan
    surface["loss"].values[0, 8] = np.inf
    figure = save(contour_figure(surface))
    by_label = {artist.get_label(): artist for artist in figure.axes[0].get_children()}
    for label, centre in (("not computed", (-0.25, -0.5)), ("not finite", (1, -1))):
        (path,) = by_label[label].get_paths()
        np.testing.assert_allclose(path.vertices[:4].mean(axis=0), centre)
    assert by_label["not finite"].get_hatch()
    assert not by_label["not computed"].get_hatch()
    np.testing.assert_allclose(by_label["interpolated"].get_xydata(), [[-0.75, 0], [0.25, 0]])
    assert "2 of 81 cells interpolated" in figure.get_suptitle()
    assert "1 of 81 cells not computed, 1 cells not finite" in figure.get_suptitle().replace("\n", " ")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"not computed", "not finite", "interpolated"} <= set(legend)
    assert figure.axes[0].collections[0].get_coordinates().shape == (10, 10, 2)  # a rectangle for each cell


def test_cells_that_are_not_finite_are_left_out_and_counted():
    surface = drawn(lambda x, y: np.nan if x > 0.9 else np.inf if y > 0.9 else valley(x, y))
    assert np.isnan(figure_3d(surface).data[0].z).sum() == 17
    for figure in (contour_figure(surface), surface_figure(surface)):
        assert "17 cells not finite" in save(figure).get_suptitle()
    assert minimum(surface) == (0.25, 0)


@pytest.mark.parametrize("beta", [[0.0], [0.5]])
def test_a_line_is_drawn_as_a_curve(beta):
    surface = drawn(valley, beta=np.array(beta), interpolated=np.arange(9) % 2 == 1)
    axes = save(contour_figure(surface)).axes[0]
    curve, evaluated, interpolated, least = axes.lines
    low = surface["loss"].values.min()
    np.testing.assert_allclose(curve.get_xydata(), np.stack([STEPS, surface["loss"][0] - low], axis=1))
    np.testing.assert_allclose(evaluated.get_xdata(), STEPS[::2])
    np.testing.assert_allclose(interpolated.get_xdata(), STEPS[1::2])
    assert least.get_xydata().tolist() == [[0.25, 0]]
    band = axes.collections[0].get_paths()[0].get_extents()
    assert band.y0 == pytest.approx(-1.96 * 0.01)


def test_a_column_is_a_line_too_and_no_surface():
    line = drawn(valley, alpha=np.zeros(1))
    np.testing.assert_allclose(contour_figure(line).axes[0].lines[0].get_xdata(), STEPS)
    for draw in (surface_figure, figure_3d):
        with pytest.raises(ValueError, match="a line is no surface: expected at least two rows"):
            draw(line)


def test_named_points_and_a_trajectory_lie_where_they_are():
    path = pd.DataFrame(
        {"epoch": [2, 0, 1], "alpha": [0.0, -1.5, -0.5], "beta": [0.0, 0.5, 0.25], "loss": [0.2, 9.0, 0.7]}
    )
    surface = drawn(valley)
    axes = save(
        contour_figure(surface, trajectory=path, points={"final": (0, 0), "initial": (-1.5, 0.5)})
    ).axes[0]
    texts = {text.get_text(): getattr(text, "xy", None) for text in axes.texts}
    assert texts["final"] == (0, 0)
    assert texts["initial"] == (-1.5, 0.5)
    assert np.array_equal(texts["0"], [-1.5, 0.5])  # the epochs
    by_label = {line.get_label(): line for line in axes.lines}
    assert by_label["trajectory"].get_xydata().tolist() == [[-1.5, 0.5], [-0.5, 0.25], [0, 0]]
    assert not [label for label in by_label if label.startswith("trained weights")]  # named already
    low, high = axes.get_xlim()
    assert low < -1.5  # widened, to one side
    assert high == 1
    assert axes.get_ylim() == (-1, 1)
    dots = axes.collections[-1]
    shading = axes.collections[0]
    assert dots.get_clim() == shading.get_clim()  # true losses in the colours of the plane
    assert dots.get_clim()[1] == pytest.approx(9 - 0.05)
    np.testing.assert_allclose(dots.get_array(), np.array([9.0, 0.7, 0.2]) - 0.05)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"alpha": [0], "beta": [0], "loss": [0]}, "columns alpha, beta, epoch, loss, got alpha, beta, loss"),
        ({"alpha": [0, 1], "beta": [0], "epoch": [0], "loss": [0]}, "differ in length"),
        ({"alpha": [], "beta": [], "epoch": [], "loss": []}, "the trajectory has no checkpoint"),
        (3, "got int"),
    ],
)
def test_tables_that_are_no_trajectory(table, message):
    with pytest.raises(ValueError, match=message):
        contour_figure(drawn(valley), trajectory=table)


def test_epochs_are_labelled_where_there_is_room():
    places = np.array([[0, 0], [0.5, 0], [0.52, 0], [0.99, 0], [1, 0]])
    assert sorted(readable(places)) == [0, 1, 4]
    assert readable(np.zeros((3, 2))) == readable(np.zeros((1, 2))) == [0]


def test_the_trajectory_s_true_losses_stand_beside_the_plane_s():
    path = {
        "epoch": [1, 0],
        "alpha": [0.25, -1.0],
        "beta": [0.0, 0.5],
        "loss": [0.3, 6.0],
        "residual": [0.0, 2.0],
    }
    surface = drawn(valley)
    figure = save(trajectory_figure(surface, path, "a model"))
    plane, losses, residuals = figure.axes
    true, on_plane = losses.lines
    assert true.get_xydata().tolist() == [[0, 6], [1, 0.3]]
    np.testing.assert_allclose(on_plane.get_ydata(), [valley(-1, 0.5), valley(0.25, 0)])
    assert residuals.lines[0].get_xydata().tolist() == [[0, 2], [1, 0]]
    assert plane.get_xlabel().startswith("α")
    del path["residual"]
    assert len(trajectory_figure(surface, path).axes) == 2


def test_interactive_heights_are_the_losses():
    surface = drawn(valley)
    (trace,) = figure_3d(surface).data
    np.testing.assert_allclose(trace.z, surface["loss"].values - surface["loss"].values.min())
    np.testing.assert_array_equal(trace.customdata[..., 0], surface["loss"])
    np.testing.assert_array_equal(trace.x, surface["alpha"])


@pytest.mark.parametrize(
    "loss", [lambda x, y: 0.5, lambda x, y: 0.0, lambda x, y: -1e6 * x], ids=["flat", "zero", "below"]
)
def test_unusual_surfaces_can_be_drawn(loss):
    surface = drawn(loss, np.array([-1.0, 0, 1]), np.array([-1.0, 0, 1]))
    for figure in (contour_figure(surface), surface_figure(surface), contour_sheet({"one": surface})):
        save(figure)
    figure_3d(surface).to_json()


# -- several surfaces


MODELS = {"none": drawn(bowl(0.2)), "zoneout": drawn(bowl(0.1, 4.0)), "bad": drawn(bowl(0.69, 100.0))}


def panels(figure):
    """The axes with a picture in them, by title."""
    return {axes.get_title(): axes for axes in figure.axes if axes.get_visible() and axes.collections}


def test_a_sheet_has_one_loss_scale_and_one_set_of_levels():
    figure = save(contour_sheet(MODELS, title="three models"))
    drawn_panels = panels(figure)
    assert list(drawn_panels) == list(MODELS)
    shared = Scale.of(*MODELS.values()).limits
    styles = {}
    for name, axes in drawn_panels.items():
        assert axes.collections[0].get_clim() == shared
        excess = MODELS[name]["loss"] - float(MODELS[name]["loss"].sel(alpha=0, beta=0))
        expected = [level for level in EXCESS_LEVELS if level < excess.max()]
        found = {c.get_gid(): c for c in axes.collections if c.get_gid()}
        assert list(found) == [f"excess {level:g}" for level in expected]
        for level, lines in zip(expected, found.values(), strict=True):
            assert lines.levels.tolist() == [level]
            styles.setdefault(level, set()).add((lines.get_linewidths()[0], str(lines.get_linestyles()[0])))
        assert (axes.get_xlim(), axes.get_ylim()) == ((-1, 1), (-1, 1))
        depth = float(MODELS[name].loss.min())
        assert f"{depth:.3f}" in {text.get_text() for text in axes.texts}
    # A level looks the same in every panel, and like no other.
    assert all(len(found) == 1 for found in styles.values())
    assert len(set.union(*styles.values())) == len(styles)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == ["trained weights", "least loss", *(f"{level:g}" for level in EXCESS_LEVELS)]


def test_excess_lines_lie_where_the_excess_is():
    fine = np.linspace(-1, 1, 201)
    axes = panels(contour_sheet({"bowl": drawn(bowl(0.3), fine, fine)}))["bowl"]
    for lines in (c for c in axes.collections if c.get_gid()):
        (level,) = lines.levels
        radii = np.linalg.norm(lines.get_paths()[0].vertices, axis=1)
        np.testing.assert_allclose(radii, np.sqrt(level), atol=2e-3)


def test_no_panel_label_or_legend_leaves_the_sheet_or_covers_another():
    for figure in (
        contour_sheet(MODELS, title="a title"),
        contour_sheet(MODELS, columns=1),
        contour_sheet(dict(list(MODELS.items())[:1])),
        grid_sheet({(h, r): MODELS["none"] for h in (64, 128, 256) for r in (0.1, 0.2, 0.3)}, "H =", "rate"),
        surface_sheet(MODELS),
    ):
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
        boxes += [artist.get_window_extent(renderer) for artist in (*figure.texts, *figure.legends)]
        for box in boxes:
            assert min(box.x0, box.y0) >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
        fixed = [*figure.legends, *figure.texts]
        for i, one in enumerate(fixed):
            for other in [*fixed[:i], *figure.axes]:
                assert not one.get_window_extent(renderer).overlaps(other.get_window_extent(renderer))


def test_a_grid_of_hyper_parameters_keeps_its_places_and_its_gaps():
    cells = {(256, 0.5): MODELS["bad"], (64, 0.05): MODELS["none"], (256, 0.05): MODELS["zoneout"]}
    figure = save(grid_sheet(cells, "H =", "rate"))
    grid = np.array(list(figure.axes)).reshape(2, 2)
    assert [axes.get_title() for axes in grid[0]] == ["rate 0.05", "rate 0.5"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["H = 64", "H = 256"]
    corner = [[axes.texts[0].get_text() for axes in row] for row in grid]
    assert corner == [["0.200", "not run"], ["0.100", "0.690"]]
    assert not grid[0, 1].collections


def test_values_without_an_order_keep_theirs():
    cells = {("zoneout", None): MODELS["zoneout"], ("none", 0.1): MODELS["none"]}
    figure = grid_sheet(cells, "", "rate")
    assert [axes.get_title() for axes in figure.axes[:2]] == ["rate None", "rate 0.1"]


def test_surfaces_side_by_side_share_their_axes():
    figure = save(surface_sheet(MODELS, columns=2))
    *scenes, bar = figure.axes
    assert [axes.get_title() for axes in scenes] == list(MODELS)
    shared = Scale.of(*MODELS.values()).limits
    for axes in scenes:
        assert axes.get_zlim() == shared
        assert axes.collections[0].get_clim() == shared
    assert bar.get_ylabel() == "loss"
    rows = {round(axes.get_position().y0, 3) for axes in scenes}
    assert len(rows) == 2


def test_interactive_surfaces_share_colours_and_heights():
    figure = linked_surfaces(MODELS, "three")
    assert [note.text for note in figure.layout.annotations] == list(MODELS)
    low, high = Scale.of(*MODELS.values()).limits
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (low, high)
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert [trace.scene for trace in figure.data] == ["scene", "scene2", "scene3"]
    scenes = [figure.layout.scene, figure.layout.scene2, figure.layout.scene3]
    assert {tuple(scene.zaxis.range) for scene in scenes} == {(low, high)}
    for trace, surface in zip(figure.data, MODELS.values(), strict=True):
        np.testing.assert_allclose(trace.z, surface["loss"] - low0(MODELS))


def low0(surfaces):
    return min(float(surface["loss"].min()) for surface in surfaces.values())


@pytest.mark.parametrize("draw", [contour_sheet, surface_sheet, linked_surfaces])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            drawn(valley, alpha=STEPS / 2),
            r"'two' spans alpha -0.5 to 0.5 and 'one' -1 to 1: expected one extent",
        ),
        (drawn(valley, beta=STEPS + 1), r"'two' spans beta 0 to 2 and 'one' -1 to 1"),
        (
            drawn(valley, normalization="tensor"),
            r"alpha of 'two' is in 'tensor-normalized radius', of 'one' in 'filter-normalized radius'",
        ),
        (drawn(valley, beta=np.zeros(1)), r"'two' is a line: expected surfaces"),
    ],
)
def test_surfaces_that_cannot_be_compared_are_refused(draw, other, message):
    if "normalization" not in other.attrs:
        other = other.assign_attrs(normalization="filter")
    with pytest.raises(ValueError, match=message):
        draw([("one", drawn(valley, normalization="filter")), ("two", other)])


def test_grids_of_other_sizes_over_the_same_extent_are_compared():
    fine = np.linspace(-1, 1, 12)  # even: no cell at the origin
    two = drawn(bowl(0.5), fine, fine, origin_loss=0.5)
    assert len(panels(save(contour_sheet({"one": drawn(bowl(0.2)), "two": two})))) == 2
    two.attrs["origin_loss"] = np.nan  # not evaluated yet
    with pytest.raises(ValueError, match="neither an attribute origin_loss nor a cell at alpha = beta = 0"):
        contour_sheet({"two": two})


@pytest.mark.parametrize("draw", [contour_sheet, surface_sheet, linked_surfaces])
def test_nothing_to_compare(draw):
    with pytest.raises(ValueError, match="there is no surface to draw"):
        draw({})


@pytest.mark.parametrize("count", [1, 10])
def test_as_many_linked_surfaces_as_a_browser_can_draw(count):
    with pytest.raises(ValueError, match=f"{count} surfaces: expected 2 to 9 to link"):
        linked_surfaces([(str(i), MODELS["none"]) for i in range(count)])


# -- curves and intervals


def test_replicates_become_their_median_and_the_interval_around_it():
    values = np.random.default_rng(0).normal(size=(50, 3))
    _, middle, low, high = replicate_band([0, 1, 2], values, coverage=0.8)
    np.testing.assert_allclose(middle, np.median(values, axis=0))
    for j in range(3):
        ordered = sorted(values[:, j])
        place = 0.1 * 49  # linear between the order statistics
        at = [
            ordered[int(p)] + (p % 1) * (ordered[int(p) + 1] - ordered[int(p)]) for p in (place, 49 - place)
        ]
        np.testing.assert_allclose([low[j], high[j]], at)


def test_a_replicate_that_is_not_finite_counts_as_infinitely_high():
    values = np.array([[1.0, 1], [2, np.nan], [3, np.inf], [4, 4], [5, 5]])
    _, middle, low, high = replicate_band([0, 1], values, coverage=1.0)
    assert middle.tolist() == [3, 5]
    assert low.tolist() == [1, 1]
    assert high.tolist() == [5, np.inf]


def test_bands_are_excess_losses_along_lines():
    lines = [
        drawn(lambda x, y, k=k: 0.3 + k * x**2, beta=np.zeros(1), normalization="filter") for k in (1, 2, 3)
    ]
    given = (STEPS, STEPS**2, STEPS**2 - 0.1, STEPS**2 + 0.1)
    axes = save(bands({"lines": lines, "given": given})).axes[0]
    curves = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    np.testing.assert_allclose(curves["lines"].get_ydata(), 2 * STEPS**2, atol=1e-12)
    np.testing.assert_allclose(curves["given"].get_ydata(), STEPS**2)
    top = axes.collections[1].get_paths()[0].get_extents()
    assert (top.y0, top.y1) == (pytest.approx(-0.1), pytest.approx(1.1))
    assert axes.get_xlabel() == "step along the direction (filter-normalized radius)"
    array = bands({"array": np.outer([1, 2, 3], STEPS**2)}, x=STEPS).axes[0]
    np.testing.assert_allclose(array.lines[0].get_ydata(), 2 * STEPS**2)


def test_a_model_has_its_colour_in_every_figure():
    models = ["none", "zoneout", "dropconnect"]
    band = (STEPS + 2, STEPS**2, STEPS**2, STEPS**2)
    table = {"model": ["dropconnect"], "measure": ["m"], "estimate": [0], "low": [-1], "high": [1]}
    figures = [
        bands({"dropconnect": band}, models=models),
        area_curves({"dropconnect": band}, models=models),
        spectra({"dropconnect": band[:2]}, models=models),
        interval_plot(table, models=models),
    ]
    colors = {figure.axes[0].lines[0].get_color() for figure in figures}
    assert colors == {category(2)["color"]}
    for draw in (lambda: bands({"x": band}, models=models), lambda: interval_plot(table, models=["none"])):
        with pytest.raises(ValueError, match="none"):
            draw()


@pytest.mark.parametrize(
    ("lines", "x", "message"),
    [
        ({"m": np.ones((3, 9))}, None, "'m' is an array of replicates: expected x"),
        ({"m": np.ones((3, 8))}, STEPS, r"shape \(3, 8\) over x of shape \(9,\)"),
        (
            {"m": (STEPS, STEPS, STEPS)},
            None,
            r"'m': expected 4 arrays of one length, got shapes \[9\], \[9\], \[9\]",
        ),
        ({"m": [drawn(valley)]}, None, "'m' has a plane among its lines"),
        (
            {"m": [drawn(valley, beta=np.zeros(1)), drawn(valley, STEPS / 2, np.zeros(1))]},
            None,
            "the lines of 'm' have different steps",
        ),
    ],
)
def test_lines_that_do_not_fit(lines, x, message):
    with pytest.raises(ValueError, match=message):
        bands(lines, x=x)


def test_area_curves_run_over_a_logarithmic_threshold():
    t = np.geomspace(0.01, 1, 20)
    axes = save(area_curves({"m": (t, t, t / 2, np.minimum(1, 2 * t))})).axes[0]
    assert axes.get_xscale() == "log"
    low, high = axes.get_ylim()
    assert low == 0
    assert high >= 1
    np.testing.assert_allclose(axes.lines[0].get_xydata(), np.stack([t, t], axis=1))


def test_spectra_show_the_bulk_and_the_outliers():
    grid = np.linspace(-1, 10, 200)
    density = np.exp(-(grid**2) * 8) + 1e-4 * np.exp(-((grid - 8) ** 2) * 8)
    density[:3] = 0
    axes = save(spectra({"m": (grid, density)})).axes[0]
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert low < 1e-4
    assert high > density.max()
    assert np.isnan(axes.lines[0].get_ydata()[:3]).all()
    with pytest.raises(ValueError, match="no density is positive"):
        spectra({"m": (grid, 0 * grid)})


def test_barriers_before_and_after_alignment_share_an_axis():
    t = np.linspace(0, 1, 5)
    before, after = (t, 1 + t * (1 - t)), (t, np.ones(5), np.ones(5) - 0.1, np.ones(5) + 0.1)
    figure = save(barrier_curves({"none": {"before": before, "after": after}, "zoneout": {"after": after}}))
    one, two = figure.axes
    assert one.get_ylim() == two.get_ylim()
    np.testing.assert_allclose(one.lines[0].get_ydata(), before[1])
    of_after = {
        axes.get_title(): [line for line in axes.lines if line.get_label() == "after"] for axes in (one, two)
    }
    assert len({line.get_color() for lines in of_after.values() for line in lines}) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["before", "after"]
    with pytest.raises(ValueError, match="no pair"):
        barrier_curves({})


def table(**columns):
    rows = {"model": ["a", "b", "a"], "measure": ["area", "area", "gap"], "unit": ["1", "1", "nats"]}
    numbers = {"estimate": [0.3, -0.2, 1.0], "low": [-0.1, -0.3, 0.5], "high": [0.5, -0.1, 2.0]}
    return {**rows, **numbers, **columns}


@pytest.mark.parametrize("kind", [dict, pd.DataFrame])
def test_intervals_lie_where_the_table_says(kind):
    figure = save(interval_plot(kind(table(significant=[False, True, False])), differences=True))
    area, gap = (axes for axes in figure.axes if axes.get_visible())
    assert [area.get_title(), gap.get_title()] == ["area", "gap"]
    assert [area.get_xlabel(), gap.get_xlabel()] == ["", "nats"]
    assert [label.get_text() for label in area.get_yticklabels()] == ["a", "b"]
    dots = [bar.lines[0] for bar in area.containers]
    assert [dot.get_xydata().tolist() for dot in dots] == [[[0.3, 0]], [[-0.2, 1]]]
    assert [dot.get_markerfacecolor() for dot in dots] == ["white", category(1)["color"]]  # one is chance
    spans = [bar.lines[2][0].get_segments()[0][:, 0].tolist() for bar in area.containers]
    np.testing.assert_allclose(spans, [[-0.1, 0.5], [-0.3, -0.1]])
    zero = [line for line in area.lines if list(line.get_xdata()) == [0, 0]]
    assert len(zero) == 1
    low, high = area.get_ylim()
    assert low > high  # the first model on top


def test_estimates_that_are_no_differences_have_no_zero_line():
    figure = interval_plot(table())
    assert not [line for axes in figure.axes for line in axes.lines if list(line.get_xdata()) == [0, 0]]
    assert figure.axes[0].containers[0].lines[0].get_markerfacecolor() == category(0)["color"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (table(low=[0.4, -0.3, 0.5]), "a, area: 0.3 lies outside 0.4 to 0.5"),
        (
            {"model": ["a"]},
            "expected a table with the columns model, measure, estimate, low, high, got model",
        ),
        ({name: [] for name in table()}, "the table of estimates is empty"),
    ],
)
def test_tables_without_intervals(broken, message):
    with pytest.raises(ValueError, match=message):
        interval_plot(broken)


# -- colours


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear sRGB (D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira, Fernandes 2009, severity 1, on linear sRGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
}


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_of_models_differ_for_colour_blind_readers(blindness):
    seen = [lab(BLINDNESS[blindness] @ linear(color)) for color in CATEGORIES]
    apart = [np.linalg.norm(one - other) for i, one in enumerate(seen) for other in seen[:i]]
    assert min(apart) > 10


def test_models_differ_in_grey_print_too():
    lightness = [lab(linear(color))[0] for color in CATEGORIES]
    first = sorted(lightness[:3])
    assert min(np.diff(first)) > 20
    assert max(lightness) < 80  # seen on white paper
    styles = [category(i) for i in range(49)]
    without_colour = [(str(s["linestyle"]), s["marker"]) for s in styles[:7]]
    assert len(set(without_colour)) == 7
    assert len({line for line, _ in without_colour}) == len({marker for _, marker in without_colour}) == 7
    assert len({tuple(map(str, style.values())) for style in styles}) == 49


def test_losses_rise_in_lightness():
    shading = contour_figure(drawn(valley)).axes[0].collections[0]
    lightness = [lab(linear(shading.cmap(x)))[0] for x in np.linspace(0, 1, 50)]
    assert min(np.diff(lightness)) > 0
    assert lightness[-1] - lightness[0] > 60


# -- files


def test_files_are_the_same_for_the_same_figure(tmp_path):
    surface = drawn(valley, normalization="filter")
    for folder in ("one", "two"):
        files = write(contour_figure(surface, "a model"), tmp_path / folder / "model-0.1")
        assert [file.name for file in files] == ["model-0.1.png", "model-0.1.pdf"]
        write(contour_sheet({"none": MODELS["none"]}), tmp_path / folder / "sheet", "svg")
        write(linked_surfaces(MODELS), tmp_path / folder / "linked")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["linked.html", "model-0.1.pdf", "model-0.1.png", "sheet.svg"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_text_stays_text_in_a_pdf(tmp_path):
    before = dict(matplotlib.rcParams)
    (file,) = write(bands({"model": (STEPS, STEPS, STEPS, STEPS)}), tmp_path / "bands", ["pdf"])
    content = file.read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    unpacked = b"".join(zlib.decompress(part) for part in streams if part.startswith(b"x"))
    assert b"/FontFile2" in content + unpacked  # TrueType, embedded
    assert b"/Type3" not in content + unpacked
    assert b"CreationDate" not in content
    assert dict(matplotlib.rcParams) == before


def test_other_formats_are_refused_before_anything_is_written(tmp_path):
    for figure, known in (
        (contour_figure(drawn(valley)), "png, pdf, svg"),
        (figure_3d(drawn(valley)), "html"),
    ):
        with pytest.raises(ValueError, match=f"format 'doc': expected of {known}"):
            write(figure, tmp_path / "x", ["doc"])
    assert not list(tmp_path.iterdir())


def test_a_figure_that_cannot_be_saved_leaves_no_file(tmp_path, monkeypatch):
    figure = contour_figure(drawn(valley))
    monkeypatch.setattr(figure, "savefig", lambda path, **_: (path.write_bytes(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        write(figure, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_nothing_finite_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="no cell of the loss surface is finite"):
        write_pictures(drawn(lambda x, y: np.nan), tmp_path)
    assert not list(tmp_path.iterdir())


def test_pictures_are_whole_and_need_no_network(tmp_path):
    write_pictures(drawn(valley), tmp_path, "a model")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(PICTURES)
    assert (tmp_path / "contour.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "surface.pdf").read_bytes().startswith(b"%PDF")
    page = (tmp_path / "surface.html").read_text()
    assert "Plotly.newPlot" in page
    assert "<script src=" not in page
    assert "a model" in page


def test_a_browser_without_webgl_shows_the_still_picture(browser, tmp_path):
    write_pictures(drawn(valley), tmp_path)
    tab = browser.new_page()
    tab.add_init_script(
        "const own = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext = "
        "function(kind, ...more) { return /webgl/.test(kind) ? null : own.call(this, kind, ...more); }"
    )
    tab.goto((tmp_path / "surface.html").as_uri())
    tab.wait_for_function("document.images.length === 1 && document.images[0].naturalWidth > 500")
    assert tab.locator("canvas").count() == 0


def test_the_weights_that_a_plane_goes_through_are_drawn():
    points = {"initial": [0.5, -0.25], "another run": [0.0, 3.0]}
    axes = contour_figure(drawn(valley, plane={"kind": "through", "points": points})).axes[0]
    assert {text.get_text() for text in axes.texts} >= set(points)
    assert axes.get_ylim()[1] > 3, "beyond the grid"
    axes = contour_figure(drawn(valley, plane={"kind": "trajectory", "points": points})).axes[0]
    assert not {text.get_text() for text in axes.texts} & set(points)


def test_a_line_has_a_contour_alone(tmp_path):
    write_pictures(drawn(valley, beta=np.zeros(1)), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["contour.pdf", "contour.png"]


def test_turning_one_surface_turns_all(browser, tmp_path):
    (file,) = write(linked_surfaces(MODELS), tmp_path / "linked")
    tab = browser.new_page()
    tab.set_viewport_size({"width": 360, "height": 160})
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
    tab.goto(file.as_uri())
    tab.evaluate("window.plot = document.getElementById('landscape'); window.events = 0")
    tab.wait_for_function("plot._fullLayout?.scene3?._scene")
    tab.evaluate("plot.on('plotly_relayout', () => { events += 1; })")
    eyes = "['scene', 'scene2', 'scene3'].map(scene => plot._fullLayout[scene].camera.eye)"
    for scene, x in (("scene2", 2), ("scene", 1.5)):
        tab.evaluate(f"Plotly.relayout(plot, {{'{scene}.camera': {{eye: {{x: {x}, y: 0.5, z: 0.25}}}}}})")
        tab.wait_for_function(f"{eyes}.every(eye => eye.x === {x})")
        assert tab.evaluate(eyes) == [{"x": x, "y": 0.5, "z": 0.25}] * 3
    tab.wait_for_timeout(300)
    assert tab.evaluate("events") == 4  # each turn and its answer: no loop
    assert errors == []
