"""Exports, read as the programs they are for read them."""

from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

import fsspec
import numpy as np
import pytest
import torch
import xarray
from matplotlib.figure import Figure

from gruland.landscape import __main__ as command
from gruland.landscape import compute_surface, export_surface, load_surface

PLANE = {"w": torch.zeros(1, 2, dtype=torch.float64)}
UNIT = [
    {"w": torch.tensor([[1.0, 0.0]], dtype=torch.float64)},
    {"w": torch.tensor([[0.0, 1.0]], dtype=torch.float64)},
]


def height(x, y):
    return 0.2 + x**2 + 0.1 * x * y - y**3 / 30


def evaluate(parameters):
    x, y = parameters["w"][0].tolist()
    return torch.full((4,), height(x, y), dtype=torch.float64), torch.tensor([1.0, 0.0, x > 0, y > 0])


@pytest.fixture
def surface():
    """5 columns by 4 rows, neither square nor symmetric."""
    return compute_surface(
        evaluate, PLANE, UNIT, size=(5, 4), extent=((-1, 3), 1), attributes={"data": "é", "pair": [1, 2]}
    )


@pytest.fixture
def line():
    return compute_surface(evaluate, PLANE, UNIT[:1], size=(6, 1), extent=((-1, 2), 1))


def test_npz_holds_arrays_and_attributes(tmp_path, surface):
    export_surface(surface, tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        assert set(file) == {*map(str, surface.variables), "attributes"}
        for name in surface.variables:
            np.testing.assert_array_equal(file[name], surface[name])
            assert file[name].dtype == surface[name].dtype
        assert json.loads(str(file["attributes"])) == surface.attrs


def test_h5_is_what_li_et_al_s_plotting_reads(tmp_path, surface):
    h5py = pytest.importorskip("h5py")
    export_surface(surface, tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "r") as f:
        # plot_2D.py: plot_2d_contour
        x, y = np.array(f["xcoordinates"][:]), np.array(f["ycoordinates"][:])
        X, Y = np.meshgrid(x, y)
        Z, accuracy = np.array(f["train_loss"][:]), f["train_acc"][:]
        levels = np.arange(0.1, 10, 0.5)
        axes = Figure().add_subplot()
        assert len(axes.contour(X, Y, Z, levels=levels).levels) == len(levels)
        Figure().add_subplot(projection="3d").plot_surface(X, Y, Z)
        # h52vtp.py
        x_array, y_array, z_array = X[:].ravel(), Y[:].ravel(), f["train_loss"][:].ravel()
        assert json.loads(f.attrs["attributes"])["data"] == "é"
    assert (len(x), len(y)) == (5, 4)
    np.testing.assert_allclose(Z, height(X, Y))
    np.testing.assert_allclose(z_array, height(x_array, y_array))
    np.testing.assert_allclose(accuracy, 25 * (1.0 + (X > 0) + (Y > 0)))


def test_h5_of_a_line_is_what_li_et_al_s_plotting_reads(tmp_path, line):
    h5py = pytest.importorskip("h5py")
    export_surface(line, tmp_path / "line.h5", split="test")
    export_surface(line, tmp_path / "train.h5")
    with h5py.File(tmp_path / "train.h5", "r") as f:
        # plot_1D.py: plot_1d_loss_err
        assert set(f) == {"xcoordinates", "train_loss", "train_acc"}
        x, loss, accuracy = (f[name][:] for name in ("xcoordinates", "train_loss", "train_acc"))
        axes = Figure().add_subplot()
        axes.plot(x, loss)
        axes.plot(x, 100 - accuracy)
    np.testing.assert_allclose(loss, height(x, 0))
    np.testing.assert_allclose(accuracy, 25 * (1.0 + (x > 0)))
    with h5py.File(tmp_path / "line.h5", "r") as f:
        assert set(f) == {"xcoordinates", "test_loss", "test_acc"}


def polydata(path):
    """Points, point data, and each shape's corners, as VTK's XML format defines them."""
    root = ElementTree.parse(path).getroot()
    assert (root.tag, root.get("type")) == ("VTKFile", "PolyData")
    piece = root.find("PolyData/Piece")

    def numbers(array):
        assert array.get("format") == "ascii"
        kind = {"Float64": float, "Int64": int}[array.get("type")]
        found = np.array([kind(word) for word in array.text.split()])
        return found.reshape(-1, int(array.get("NumberOfComponents", 1)))

    points = numbers(piece.find("Points/DataArray"))
    assert len(points) == int(piece.get("NumberOfPoints"))
    data = {array.get("Name"): numbers(array)[:, 0] for array in piece.findall("PointData/DataArray")}
    assert all(len(values) == len(points) for values in data.values())
    shapes = {}
    for kind in ("Lines", "Polys"):
        connectivity, offsets = (
            numbers(piece.find(f"{kind}/DataArray[@Name='{name}']"))[:, 0]
            for name in ("connectivity", "offsets")
        )
        assert len(offsets) == int(piece.get(f"NumberOf{kind}"))
        starts = [0, *offsets[:-1].astype(int)]
        shapes[kind] = [connectivity[a:b] for a, b in zip(starts, offsets.astype(int), strict=False)]
        assert sum(map(len, shapes[kind])) == len(connectivity)
    return points, data, shapes


def area(corners):
    """Of a polygon in the plane, positive where it runs anticlockwise."""
    x, y = corners[:, 0], corners[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_vtp_is_a_surface_of_quadrilaterals(tmp_path, surface):
    export_surface(surface, tmp_path / "s.vtp", z_scale=2.5)
    points, data, shapes = polydata(tmp_path / "s.vtp")
    assert len(points) == 20
    np.testing.assert_array_equal(data["loss"], [height(x, y) for x, y in points[:, :2]])
    np.testing.assert_array_equal(points[:, 2], 2.5 * data["loss"])
    np.testing.assert_array_equal(data["accuracy"], (1.0 + (points[:, 0] > 0) + (points[:, 1] > 0)) / 4)
    assert not shapes["Lines"]
    # 4 x 3 cells of 1 x 2/3 that cover the grid once: their centres are all different.
    assert len(shapes["Polys"]) == 12
    np.testing.assert_allclose([area(points[corners]) for corners in shapes["Polys"]], 2 / 3)
    centres = {tuple(points[corners, :2].mean(axis=0).round(9)) for corners in shapes["Polys"]}
    assert len(centres) == 12


def test_cells_that_are_not_finite_are_holes_in_a_vtp(tmp_path, surface):
    surface["loss"].values[1, 2] = np.nan
    surface["loss"].values[3, 4] = np.inf
    export_surface(surface, tmp_path / "s.vtp")
    points, data, shapes = polydata(tmp_path / "s.vtp")
    assert np.isfinite(points).all()
    assert len(points) == 18
    np.testing.assert_array_equal(data["loss"], [height(x, y) for x, y in points[:, :2]])
    assert len(shapes["Polys"]) == 12 - 4 - 1
    np.testing.assert_allclose([area(points[corners]) for corners in shapes["Polys"]], 2 / 3)
    for corners in shapes["Polys"]:
        assert not (np.abs(points[corners, :2] - [1, -1 / 3]).max(axis=1) < 1e-9).any()


def test_vtp_of_a_line_is_a_polyline(tmp_path, line):
    line["loss"].values[0, 4] = np.nan
    line["accuracy"].values[0, 0] = np.nan
    export_surface(line, tmp_path / "line.vtp")
    points, data, shapes = polydata(tmp_path / "line.vtp")
    assert set(data) == {"loss"}  # an accuracy is missing where the loss is not: none is written
    assert not shapes["Polys"]
    assert [corners.tolist() for corners in shapes["Lines"]] == [[0, 1], [1, 2], [2, 3]]
    np.testing.assert_allclose(points[:, 0], [-1, -0.4, 0.2, 0.8, 2])


def test_a_surface_without_a_finite_loss_is_no_vtp(tmp_path, surface):
    surface["loss"].values[:] = np.nan
    with pytest.raises(ValueError, match="no cell of the loss surface is finite: there is nothing to export"):
        export_surface(surface, tmp_path / "s.vtp")
    assert not list(tmp_path.iterdir())
    export_surface(surface, tmp_path / "s.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["s.npz"]


@pytest.mark.parametrize(("name", "got"), [("s.csv", ".csv"), ("s", "no suffix")])
def test_other_suffixes(tmp_path, surface, name, got):
    with pytest.raises(ValueError, match=rf"{name}: a surface is exported to .npz, .h5, .vtp, got {got}"):
        export_surface(surface, tmp_path / name)


def test_an_object_store_holds_what_is_read_back(surface):
    """fsspec's memory has no renames and no locks, as S3 has none."""
    address = "memory://bucket/s.zarr"
    for values in (surface, surface.assign_attrs(seed=1)):  # the second takes the place of the first
        export_surface(values, address)
        xarray.testing.assert_identical(load_surface(address), values)


def test_an_object_store_takes_a_surface_as_it_is(tmp_path, surface):
    with pytest.raises(ValueError, match=r"memory://bucket/s\.npz: .* expected an address ending in \.zarr"):
        export_surface(surface, "memory://bucket/s.npz")
    export_surface(surface, "memory://bucket/source.zarr")
    assert command.main(["export", "memory://bucket/source.zarr", str(tmp_path / "s.npz")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["loss"], surface["loss"])


@pytest.mark.parametrize("cut", ["done/c/0/0", "loss_se/c/0/0", "done"])
def test_what_a_killed_writer_left_in_an_object_store_is_no_surface(surface, cut):
    address = "memory://bucket/cut.zarr"
    export_surface(surface, address)
    fsspec.filesystem("memory").rm(f"/bucket/cut.zarr/{cut}", recursive=True)
    with pytest.raises(FileNotFoundError, match=rf"there is no complete loss surface at {address}"):
        load_surface(address)


def test_a_surface_on_its_way_needs_a_folder(surface):
    with pytest.raises(ValueError, match=r"path=memory://s\.zarr: .* locks and renames: expected a folder"):
        compute_surface(evaluate, PLANE, UNIT, size=(2, 2), path="memory://s.zarr")
    with pytest.raises(ValueError, match="is not complete"):
        export_surface(surface.assign(done=surface["done"] & False), "memory://s.zarr")


def test_other_splits(tmp_path, surface):
    with pytest.raises(ValueError, match="split='dev': expected train or test"):
        export_surface(surface, tmp_path / "s.h5", split="dev")


def test_h5_without_h5py(tmp_path, surface, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'a .h5 file needs h5py: pip install "gruland\[export\]"'):
        export_surface(surface, tmp_path / "s.h5")
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_old_file(tmp_path, surface, monkeypatch):
    path = tmp_path / "s.vtp"
    export_surface(surface, path)
    before = path.read_bytes()
    monkeypatch.setattr("gruland.landscape.export._polydata", lambda *_: iter([None]))
    with pytest.raises(TypeError):
        export_surface(surface, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.vtp"]
