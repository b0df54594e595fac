"""Augmentation: maps are compared with their geometry, pictures with SciPy's resampling."""

import keras
import numpy as np
import pytest
from scipy import ndimage, stats

from pipeline.config import Recipe
from pipeline.training import augment, contrasts
from pipeline.training.augmentations import mixing

MIDDLE = 23.5  # centre of 48 pixels
MOVED = {"rotation": 30.0, "shift": 0.2, "zoom": 0.3, "flip": True}
EVERYTHING = MOVED | {"crop": 40, "random_erasing": 0.5, "mixup": 0.4, "cutmix": 0.5}


def recipe(**changes):
    """Return a recipe without augmentation except `changes`."""
    return Recipe(**({"epochs": 1, "tta_flip": False} | changes))


def draw(count, seed=1, side=None, plain=False, **changes):
    """Draw parameters of `count` pictures, [count, WIDTH]; `side` is by default the crop."""
    settings = recipe(**changes)
    drawn = augment.draw(settings, count, np.random.default_rng(seed), side or settings.crop, plain)
    assert drawn.dtype == "float32"
    return drawn


HOLE = slice(8, 12)


def patch(drawn):
    """Return the squares of cutmix: mixing is drawn last, and mixup is its last number."""
    return drawn[:, -5:-1]


def own(drawn):
    """Return the weight of each own label, for draws with mixing."""
    return mixing.own_part(drawn[:, -mixing.WIDTH :])


def maps(count, **how):
    """Draw maps, as matrices [count, 2, 3]: input (x, y) = matrix @ output (x, y, 1)."""
    return matrices(draw(count, **how)[:, : augment.MAP])


def matrices(rows):
    assert (rows[:, 6:] == 0).all(), "no perspective"
    return rows[:, :6].reshape(-1, 2, 3).astype("float64")


def apply(pictures, drawn, side=None, **changes):
    """Apply `drawn` to `pictures`."""
    settings = recipe(**changes)
    return keras.ops.convert_to_numpy(augment.vary(pictures, drawn, settings, side or settings.crop))


def vary(pictures, seed=1, side=None, plain=False, **changes):
    """Augment `pictures` randomly."""
    return apply(pictures, draw(len(pictures), seed, side, plain, **changes), side, **changes)


def parts(maps, side=48):
    """Return the parts of maps to an output of `side` pixels: angle (degrees), zoom, mirroring, shift of the centre."""
    (a0, a1, _), (b0, b1, _) = maps.transpose(1, 2, 0)
    shift_x, shift_y = (maps @ [(side - 1) / 2, (side - 1) / 2, 1] - MIDDLE).T
    return {
        "angle": np.degrees(np.arctan2(-a1, b1)), "zoom_x": np.hypot(a0, b0), "zoom_y": np.hypot(a1, b1),
        "mirrored": a0 * b1 - a1 * b0 < 0, "shift_x": shift_x, "shift_y": shift_y,
    }  # fmt: skip


def composed(angle, zoom_x, zoom_y, mirrored, shift_x, shift_y):
    """Return the map with these parts: mirroring and zoom first, then rotation, about the centre, then shift."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([-zoom_x if mirrored else zoom_x, zoom_y])
    return np.column_stack([linear, np.array([shift_x, shift_y]) + MIDDLE - linear @ [MIDDLE, MIDDLE]])


def covered(boxes, side=48):
    """Return which pixels have their centre in boxes (left, top, right, bottom, from 0 to 1): bool [n, side, side]."""
    middles = (np.arange(side) + 0.5) / side
    left, top, right, bottom = boxes.astype("float64").T[..., None]
    across, down = (middles >= left) & (middles < right), (middles >= top) & (middles < bottom)
    return down[:, :, None] & across[:, None, :]


def assert_uniform(values, low, high, atol=0.04):
    """Assert that each quarter of a range contains a quarter of the values: `atol` is six standard errors of 4,000."""
    slack = 1e-3 * (high - low)
    shares = np.histogram(values, bins=4, range=(low - slack, high + slack))[0] / len(values)
    np.testing.assert_allclose(shares, 0.25, atol=atol)


@pytest.fixture
def pictures():
    """32 random pictures, float32 [32, 48, 48, 1]."""
    return np.random.default_rng(0).integers(0, 256, (32, 48, 48, 1)).astype("float32")


@pytest.fixture
def smooth(pictures):
    """The same pictures without sharp edges, so that the rounding of coordinates matters less."""
    return ndimage.gaussian_filter(pictures, (0, 2, 2, 0))


# Maps


def test_maps_are_mirroring_then_zoom_then_rotation_about_the_centre_then_shift():
    drawn = maps(200, **MOVED)
    expected = [composed(*values) for values in zip(*parts(drawn).values(), strict=True)]
    np.testing.assert_allclose(drawn, expected, atol=1e-4)


REACH = {"rotation": {"angle": 30}, "zoom": {"zoom_x": 0.3, "zoom_y": 0.3}, "shift": {"shift_x": 9.6, "shift_y": 9.6},
         "flip": {"mirrored": 1}}  # fmt: skip


@pytest.mark.parametrize("key", REACH)
def test_draws_are_uniform_in_their_range_and_change_no_other_part(key):
    identity, drawn = parts(np.eye(3)[None, :2]), parts(maps(4000, **{key: MOVED[key]}))
    for part, values in drawn.items():
        middle, reach = float(identity[part][0]), REACH[key].get(part)
        if reach is None:
            assert abs(values - middle).max() < 1e-5, part
        elif key == "flip":
            assert 0.46 < values.mean() < 0.54  # five standard errors
        else:
            assert abs(values - middle).max() <= reach * 1.0001
            assert_uniform(values, middle - reach, middle + reach)
    if key in ("zoom", "shift"):
        assert abs(np.corrcoef(drawn[f"{key}_x"], drawn[f"{key}_y"])[0, 1]) < 0.1, "the axes are independent"


@pytest.mark.parametrize(("crop", "side"), [(48, 48), (40, 24)])
def test_resampling_equals_that_of_scipy(crop, side, smooth):
    ranges = {"rotation": 180.0, "shift": 0.9, "zoom": 0.9, "flip": True}
    varied = vary(smooth, side=side, crop=crop, **ranges)
    drawn, how = maps(len(smooth), side=side, crop=crop, **ranges), {"output_shape": (side, side), "order": 1}
    for picture, result, ((a0, a1, a2), (b0, b1, b2)) in zip(smooth, varied, drawn, strict=True):
        expected = ndimage.affine_transform(picture[..., 0], [[b1, b0], [a1, a0]], [b2, a2], mode="nearest", **how)
        np.testing.assert_allclose(result[..., 0], expected, atol=0.05)


# Side


@pytest.mark.parametrize(("crop", "side"), [(48, 36), (40, 48)])
def test_side_changes_neither_the_window_nor_other_draws(crop, side):
    """Pixels are squares: the corners of the window stay, not the centres of its pixels."""
    drawn, corners = {}, {}
    for each in (crop, side):
        drawn[each] = draw(50, side=each, **EVERYTHING | {"crop": crop})
        edges = np.array([[-0.5, -0.5, 1], [each - 0.5, -0.5, 1], [-0.5, each - 0.5, 1]])
        corners[each] = matrices(drawn[each][:, : augment.MAP]) @ edges.T
    assert (drawn[crop][:, augment.MAP :] == drawn[side][:, augment.MAP :]).all()
    np.testing.assert_allclose(corners[side], corners[crop], atol=1e-3)


# Erasing


def inside(boxes):
    """Return left, top, width and height of boxes, float64 [n] each; assert that they are inside the picture."""
    left, top, right, bottom = boxes.T.astype("float64")
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 1 + 1e-6
    return left, top, right - left, bottom - top


def test_erased_rectangles_have_the_areas_and_aspects_of_the_paper_and_uniform_positions():
    left, top, width, height = inside(draw(8000, random_erasing=1.0)[:, HOLE])
    area = width * height
    assert 0.02 - 1e-5 <= area.min() <= area.max() <= 0.4 + 1e-5
    assert ((width < 1 - 1e-5) & (height < 1 - 1e-5)).mean() > 0.9  # larger ones are clipped to the picture
    aspect = np.log(width / height)
    assert abs(aspect).max() <= np.log(1 / 0.3) + 1e-4
    assert_uniform(area, 0.02, 0.4, atol=0.05)
    assert_uniform(aspect, -np.log(1 / 0.3), np.log(1 / 0.3), atol=0.05)
    for start, size in ((left, width), (top, height)):
        assert_uniform(start[size < 0.9] / (1 - size[size < 0.9]), 0, 1)


def test_erased_rectangle_is_grey_and_the_rest_unchanged(pictures):
    drawn = draw(32, side=36, random_erasing=0.5)
    hole = covered(drawn[:, HOLE], 36)[..., None]
    assert 4 < hole.any((1, 2, 3)).sum() < 28
    expected = np.where(hole, 128, vary(pictures, side=36))
    assert (apply(pictures, drawn, 36, random_erasing=0.5) == expected).all()


# Mixing


def test_patch_is_from_the_partner_and_the_own_weight_is_the_rest(pictures):
    drawn, side = draw(32, side=36, cutmix=0.7), 36
    mixed, plain = apply(pictures, drawn, side, cutmix=0.7), vary(pictures, side=side)
    square = covered(patch(drawn), side)[..., None]
    assert (mixed == np.where(square, plain[::-1], plain)).all()
    # Each side of a square is rounded by less than a pixel.
    np.testing.assert_allclose(1 - square.mean((1, 2, 3)), own(drawn)[:, 0], atol=2 / side + 1 / side**2)


@pytest.mark.parametrize("strength", [0.2, 4.0])
def test_mixup_weights_are_beta_distributed_and_at_least_one_half(strength):
    kept = own(draw(20_000, mixup=strength))[:, 0]
    weights = np.random.default_rng(9).beta(strength, strength, 20_000)
    wanted = np.maximum(weights, 1 - weights)
    np.testing.assert_allclose(np.quantile(kept, [0.1, 0.5, 0.9]), np.quantile(wanted, [0.1, 0.5, 0.9]), atol=0.02)


def test_with_cutmix_and_mixup_a_picture_is_either_patched_or_blended():
    drawn = draw(32, mixup=1.0, cutmix=0.5)
    patched = patch(drawn).any(axis=1)
    assert 4 < patched.sum() < 28
    assert (drawn[patched, -1] == 1).all()
    assert (drawn[~patched, -1] < 1).all()


def test_partner_is_mixed_after_its_own_augmentation(smooth):
    ranges = {"rotation": 30.0, "flip": True, "random_erasing": 1.0}
    drawn = draw(32, **ranges, mixup=1.0)
    alone, kept = apply(smooth, drawn, **ranges), own(drawn)[:, :, None, None]
    mixed = apply(smooth, drawn, **ranges, mixup=1.0)
    np.testing.assert_allclose(mixed, kept * alone + (1 - kept) * alone[::-1], atol=1e-3)


# Plain epochs


def test_plain_pictures_are_only_cropped_and_mirrored(pictures):
    drawn = draw(32, plain=True, **EVERYTHING)
    assert (drawn[:, 8:16] == 0).all()
    assert (own(drawn) == 1).all()
    result, window = apply(pictures, drawn, **EVERYTHING), pictures[:, 4:44, 4:44]
    kept, mirrored = ((result == each).all((1, 2, 3)) for each in (window, window[:, :, ::-1]))
    assert (kept ^ mirrored).all()
    assert 4 < mirrored.sum() < 28


# Test-time augmentation


@pytest.mark.parametrize(("crop", "flip", "shift", "zoom"), [(48, False, 0, 0), (47, True, 0, 0.1), (40, True, 2, 0)])
def test_views_are_plain_shifted_and_zoomed_each_with_its_mirror_image(crop, flip, shift, zoom):
    views = augment.tta_maps(recipe(crop=crop, tta_flip=flip, tta_shift=shift, tta_zoom=zoom))
    assert views.dtype == "float32"
    found = parts(matrices(views), crop)
    assert abs(found.pop("angle")).max() < 1e-4
    wanted = [(1, 0, 0)] + [(1, x, y) for x in (-shift, shift) for y in (-shift, shift)] * (shift > 0)
    wanted += [(1 - zoom, 0, 0), (1 + zoom, 0, 0)] * (zoom > 0)
    wanted = [(factor, factor, mirrored, x, y) for factor, x, y in wanted for mirrored in (False, True)[: 1 + flip]]
    np.testing.assert_allclose(np.array(list(found.values()), "float64").T, wanted, atol=1e-4)


# Contrast


def equalised(picture):
    """Return 255 times the mean rank of each pixel's grey level among all pixels."""
    return 255 * (stats.rankdata(picture, axis=None) - 0.5).reshape(picture.shape) / picture.size


def locally_normalised(picture):
    """Return 128 + 48 * (pixel - mean) / (deviation + 8), over 13x13 pixels; edges are mirrored."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(picture.astype("float64"), 6, "symmetric"), (13, 13))
    mean, deviation = around.mean((2, 3)), around.std((2, 3))
    return np.clip(128 + 48 * (picture - mean) / (deviation + 8), 0, 255)


@pytest.mark.parametrize(("kind", "one"), [("histogram", equalised), ("local", locally_normalised)])
def test_contrast_equals_a_computation_per_picture(kind, one, monkeypatch):
    monkeypatch.setattr(contrasts, "PART", 2)  # three chunks, the last one incomplete
    contrast = np.linspace(0, 1, 5)[:, None, None]  # the first picture is constant
    noise = np.random.default_rng(4).integers(0, 30, (5, 48, 48))
    dim = (20 + contrast * (np.linspace(0, 60, 48) + noise)).astype("uint8")
    result = contrasts.normalise(dim, kind)
    assert result.dtype == "uint8"
    np.testing.assert_allclose(result, [one(picture) for picture in dim], atol=0.51)  # rounded to a grey level
