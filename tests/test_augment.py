"""Augmentation does what the recipe's words say: the maps by their geometry, the pictures by SciPy's resampling."""

import math

import keras
import numpy as np
import pytest
from scipy import ndimage

from pipeline.config import Recipe
from pipeline.training import augment, contrasts
from pipeline.training.augmentations import mixing

MIDDLE = 23.5  # of 48 pixels
RAMP = np.arange(48, dtype="float32")
MOVED = {"rotation": 30.0, "shift": 0.2, "zoom": 0.3, "flip": True}
EVERYTHING = MOVED | {"crop": 40, "random_erasing": 0.5, "mixup": 0.4, "cutmix": 0.5}


def recipe(**changes):
    """A recipe that varies pictures by `changes` alone."""
    return Recipe(**({"epochs": 1, "tta_flip": False} | changes))


def draw(count, seed=1, side=None, plain=False, **changes):
    """What is drawn for `count` pictures, [count, WIDTH]; the network sees the whole window unless `side` is given."""
    settings = recipe(**changes)
    drawn = augment.draw(settings, count, np.random.default_rng(seed), side or settings.crop, plain)
    assert drawn.dtype == "float32"
    return drawn


HOLE = slice(8, 12)


def patch(drawn):
    """The squares of cutmix: with the part of mixup they are drawn last."""
    return drawn[:, -5:-1]


def own(drawn):
    """The part of each label that is its own, of draws with mixing last."""
    return mixing.own_part(drawn[:, -mixing.WIDTH :])


def maps(count, **how):
    """The maps that are drawn, as matrices [count, 2, 3]: input (x, y) = matrix @ output (x, y, 1)."""
    rows = draw(count, **how)[:, : augment.MAP]
    assert (rows[:, 6:] == 0).all(), "no perspective"
    return rows[:, :6].reshape(count, 2, 3).astype("float64")


def done(pictures, drawn, side=None, **changes):
    """`pictures` with what was `drawn` done to them."""
    settings = recipe(**changes)
    return keras.ops.convert_to_numpy(augment.vary(pictures, drawn, settings, side or settings.crop))


def vary(pictures, seed=1, side=None, plain=False, **changes):
    """`pictures`, varied by chance."""
    return done(pictures, draw(len(pictures), seed, side, plain, **changes), side, **changes)


def parts(matrices):
    """What maps between whole pictures are composed of: angle (degrees), zoom and mirroring, where the middle goes."""
    (a0, a1, _), (b0, b1, _) = matrices.transpose(1, 2, 0)
    return {
        "angle": np.degrees(np.arctan2(-a1, b1)),
        "zoom_x": np.hypot(a0, b0),
        "zoom_y": np.hypot(a1, b1),
        "mirrored": a0 * b1 - a1 * b0 < 0,
        "shift_x": (matrices @ [MIDDLE, MIDDLE, 1])[:, 0] - MIDDLE,
        "shift_y": (matrices @ [MIDDLE, MIDDLE, 1])[:, 1] - MIDDLE,
    }


def composed(angle, zoom_x, zoom_y, mirrored, shift_x, shift_y):
    """The map built from its parts as a product of matrices, right to left as a pixel meets them."""
    to_middle = np.array([[1, 0, -MIDDLE], [0, 1, -MIDDLE], [0, 0, 1]])
    mirror = np.diag([-1.0 if mirrored else 1.0, 1, 1])
    zoom = np.diag([zoom_x, zoom_y, 1])
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    shift_back = np.array([[1, 0, MIDDLE + shift_x], [0, 1, MIDDLE + shift_y], [0, 0, 1]])
    return (shift_back @ rotation @ zoom @ mirror @ to_middle)[:2]


def covered(boxes, side=48):
    """Which pixels have their middle in (left, top, right, bottom), as parts of the side: bool [n, side, side]."""
    middles = (np.arange(side) + 0.5) / side
    left, top, right, bottom = boxes.astype("float64").T[..., None]
    across, down = (middles >= left) & (middles < right), (middles >= top) & (middles < bottom)
    return down[:, :, None] & across[:, None, :]


def even(values, low, high, atol=0.04):
    """Each quarter of a range must hold a quarter of the values: `atol` is six standard errors of 4,000."""
    slack = 1e-3 * (high - low)
    shares = np.histogram(values, bins=4, range=(low - slack, high + slack))[0] / len(values)
    np.testing.assert_allclose(shares, 0.25, atol=atol)


@pytest.fixture
def pictures():
    """32 lopsided pictures, float32 [32, 48, 48, 1]."""
    return np.random.default_rng(0).integers(0, 256, (32, 48, 48, 1)).astype("float32")


@pytest.fixture
def smooth(pictures):
    """The same without sharp edges, where the rounding of coordinates matters less."""
    return ndimage.gaussian_filter(pictures, (0, 2, 2, 0))


# Maps


def test_without_ranges_pictures_stay_what_they_are(pictures):
    assert (vary(pictures) == pictures).all()


@pytest.mark.parametrize("ranges", [{"rotation": 40.0}, {"zoom": 0.3}, {"shift": 0.2}, {"flip": True}, MOVED], ids=str)
def test_maps_are_mirroring_then_zoom_then_rotation_about_the_middle_then_shift(ranges):
    found = maps(200, **ranges)
    each = parts(found)
    again = [composed(*(each[part][i] for part in each)) for i in range(len(found))]
    np.testing.assert_allclose(found, again, atol=1e-4)


REACH = {"rotation": {"angle": 30}, "zoom": {"zoom_x": 0.3, "zoom_y": 0.3}, "shift": {"shift_x": 9.6, "shift_y": 9.6},
         "flip": {"mirrored": 1}}  # fmt: skip


@pytest.mark.parametrize("key", REACH)
@pytest.mark.parametrize("alone", [True, False])
def test_range_is_filled_evenly_never_left_and_leaves_the_other_parts_alone(key, alone):
    found, still = parts(maps(4000, **{key: MOVED[key]} if alone else MOVED)), parts(np.eye(3)[None, :2])
    for part, values in found.items():
        middle, reach = float(still[part][0]), REACH[key].get(part)
        if reach is None:
            assert not alone or abs(values - middle).max() < 1e-5, part
        elif key == "flip":
            assert 0.46 < values.mean() < 0.54  # five standard errors
        else:
            assert abs(values - middle).max() <= reach * 1.0001
            even(values, middle - reach, middle + reach)


def test_parts_are_drawn_independently():
    drawn = draw(4000, **MOVED, random_erasing=1.0, cutmix=1.0)
    holes, patches = drawn[:, HOLE], patch(drawn)
    each = [*parts(maps(4000, **MOVED, random_erasing=1.0, cutmix=1.0)).values(), holes[:, 0], patches[:, 0]]
    correlation = np.corrcoef([part.astype(float) for part in each])
    np.testing.assert_allclose(correlation, np.eye(len(each)), atol=0.1)


@pytest.mark.parametrize("ranges", [{"rotation": 180.0}, {"zoom": 0.9}, {"shift": 0.9}, MOVED], ids=str)
@pytest.mark.parametrize(("crop", "side"), [(48, 48), (40, 40), (48, 36), (40, 24)])
def test_pictures_are_resampled_as_scipy_does_under_the_same_maps(ranges, crop, side, smooth):
    found = vary(smooth, side=side, crop=crop, **ranges)
    assert found.shape == (32, side, side, 1)
    matrices = maps(len(smooth), side=side, crop=crop, **ranges)
    for picture, varied, ((a0, a1, a2), (b0, b1, b2)) in zip(smooth, found, matrices, strict=True):
        wanted = ndimage.affine_transform(
            picture[..., 0], [[b1, b0], [a1, a0]], [b2, a2], output_shape=(side, side), order=1, mode="nearest"
        )
        np.testing.assert_allclose(varied[..., 0], wanted, atol=0.05)


# Crop and side


@pytest.mark.parametrize("crop", [8, 42, 47, 48])
def test_crop_is_the_window_in_the_middle(crop, pictures):
    found = vary(pictures, crop=crop)
    assert found.shape == (32, crop, crop, 1)
    if crop % 2 == 0:
        edge = (48 - crop) // 2
        assert (found == pictures[:, edge : 48 - edge, edge : 48 - edge]).all()
    else:  # the middle lies between two pixels
        wanted = (pictures[:, :-1, :-1] + pictures[:, 1:, :-1] + pictures[:, :-1, 1:] + pictures[:, 1:, 1:]) / 4
        np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize(("crop", "side"), [(48, 36), (48, 24), (48, 47), (40, 20), (40, 48), (24, 48)])
def test_another_side_shows_the_whole_window_by_the_middles_of_its_pixels(crop, side):
    """A ramp stays one. Pixels are squares: their edges meet, not their middles."""
    ramp = np.broadcast_to(RAMP[:, None], (2, 48, 48, 1)).astype("float32")
    first = (48 - crop) / 2
    wanted = first - 0.5 + (np.arange(side) + 0.5) * crop / side
    for pictures, axis in ((ramp, 2), (ramp.transpose(0, 2, 1, 3), 1)):
        found = vary(pictures, side=side, crop=crop)
        assert found.shape == (2, side, side, 1)
        along = np.moveaxis(found[..., 0], axis, 2)
        np.testing.assert_allclose(along, np.broadcast_to(wanted, along.shape), atol=1e-3)


@pytest.mark.parametrize("side", [24, 36, 48])
def test_another_side_changes_nothing_else_that_is_drawn(side):
    whole, small = (draw(50, side=each, **EVERYTHING | {"crop": 48}) for each in (48, side))
    assert (whole[:, 8:] == small[:, 8:]).all()
    corners = {each: np.array([[-0.5, -0.5, 1], [each - 0.5, -0.5, 1], [-0.5, each - 0.5, 1]]).T for each in (48, side)}
    places = {
        each: drawn[:, :6].reshape(-1, 2, 3).astype("float64") @ corners[each]
        for each, drawn in ((48, whole), (side, small))
    }
    np.testing.assert_allclose(places[side], places[48], atol=1e-3)


# Erasing


@pytest.mark.parametrize("part", [0.0, 0.25, 1.0])
def test_part_of_the_pictures_gets_a_hole(part):
    holes = draw(4000, random_erasing=part)[:, HOLE]
    atol = 0.0 if part in (0, 1) else 0.04  # six standard errors
    np.testing.assert_allclose((holes != 0).any(axis=1).mean(), part, atol=atol)


def inside(boxes):
    """Left, top, width and height of boxes, float64 [n] each, none of which may leave the picture."""
    left, top, right, bottom = boxes.T.astype("float64")
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 1 + 1e-6
    return left, top, right - left, bottom - top


def test_holes_have_the_areas_and_aspects_of_the_paper_anywhere_inside():
    left, top, width, height = inside(draw(8000, random_erasing=1.0)[:, HOLE])
    assert (width * height).min() >= 0.02 - 1e-5
    assert (width * height).max() <= 0.4 + 1e-5
    whole = (width < 1 - 1e-5) & (height < 1 - 1e-5)  # what would be wider than the picture is as wide
    assert whole.mean() > 0.9
    aspect = np.log(width / height)
    assert abs(aspect).max() <= math.log(1 / 0.3) + 1e-4
    even(width * height, 0.02, 0.4, atol=0.05)
    even(aspect, -math.log(1 / 0.3), math.log(1 / 0.3), atol=0.05)
    for start, size in ((left, width), (top, height)):
        even(start[size < 0.9] / (1 - size[size < 0.9]), 0, 1)


@pytest.mark.parametrize("side", [48, 36])
def test_hole_is_grey_and_all_around_it_stays(side, pictures):
    drawn = draw(32, side=side, random_erasing=0.5)
    found, plain = done(pictures, drawn, side, random_erasing=0.5), vary(pictures, side=side)
    hole = covered(drawn[:, HOLE], side)[..., None]
    assert hole.any((1, 2, 3)).any()
    assert not hole.any((1, 2, 3)).all()
    assert (found[hole] == 128).all()
    assert (found == plain)[~hole].all()


# Mixing


FLAT = np.arange(1, 33, dtype="float32") * 7  # of pictures that have one grey level each
FLAT_PICTURES = np.broadcast_to(FLAT[:, None, None, None], (32, 48, 48, 1)).astype("float32")


def test_patches_are_squares_inside_whose_area_is_even():
    _, _, width, height = inside(patch(draw(4000, cutmix=1.0)))
    np.testing.assert_allclose(width, height, atol=1e-6)
    even(width * height, 0, 1)


@pytest.mark.parametrize("side", [48, 36])
def test_patch_shows_the_mate_and_own_is_the_part_that_is_left(side, pictures):
    drawn = draw(32, side=side, cutmix=0.7)
    found, plain = done(pictures, drawn, side, cutmix=0.7), vary(pictures, side=side)
    square = covered(patch(drawn), side)[..., None]
    assert (found[square] == plain[::-1][square]).all()
    assert (found[~square] == plain[~square]).all()
    kept = own(drawn)
    assert kept.shape == (32, 1)
    assert len(np.unique(kept)) > 10
    # Each side of a square takes or leaves less than a pixel's width.
    np.testing.assert_allclose(1 - square.mean((1, 2, 3)), kept[:, 0], atol=2 / side + 1 / side**2)


@pytest.mark.parametrize("strength", [0.2, 1.0, 4.0])
def test_shares_are_the_larger_parts_of_a_beta_distribution(strength):
    kept = own(draw(20_000, mixup=strength))[:, 0]
    either = np.random.default_rng(9).beta(strength, strength, 20_000)
    wanted = np.maximum(either, 1 - either)
    np.testing.assert_allclose(np.quantile(kept, [0.1, 0.5, 0.9]), np.quantile(wanted, [0.1, 0.5, 0.9]), atol=0.02)


@pytest.mark.parametrize("cutmix", [0.0, 0.5])
def test_a_patched_picture_is_not_blended_too_and_labels_agree_with_pixels(cutmix):
    both = {"mixup": 1.0, "cutmix": cutmix}
    drawn = draw(32, **both)
    patched = patch(drawn).any(axis=1) & (cutmix > 0)
    assert (4 < patched.sum() < 28) == (cutmix > 0)
    assert (drawn[patched, -1] == 1).all()
    assert (drawn[~patched, -1] < 1).all()
    kept, seen = own(drawn)[:, 0], done(FLAT_PICTURES, drawn, **both)
    assert min(kept[~patched]) >= 0.5
    parts_kept = (seen[..., 0] - FLAT[::-1, None, None]) / (FLAT - FLAT[::-1])[:, None, None]
    assert abs(parts_kept - kept[:, None, None])[~patched].max() < 1e-4
    np.testing.assert_allclose(parts_kept[patched].mean((1, 2)), kept[patched], atol=2 / 48 + 1 / 48**2)


def test_mate_is_mixed_in_as_it_is_shown_itself(smooth):
    ranges = {"rotation": 30.0, "flip": True, "random_erasing": 1.0}
    drawn = draw(32, **ranges, mixup=1.0)
    alone, kept = done(smooth, drawn, **ranges), own(drawn)[:, :, None, None]
    mixed = done(smooth, drawn, **ranges, mixup=1.0)
    np.testing.assert_allclose(mixed, kept * alone + (1 - kept) * alone[::-1], atol=1e-3)


# Chance


def test_plain_pictures_are_mirrored_and_nothing_else(pictures):
    drawn = draw(32, plain=True, **EVERYTHING)
    assert (drawn[:, 8:16] == 0).all()
    assert (own(drawn) == 1).all()
    found, window = done(pictures, drawn, **EVERYTHING), pictures[:, 4:44, 4:44]
    kept, mirrored = ((found == each).all((1, 2, 3)) for each in (window, window[:, :, ::-1]))
    assert (kept ^ mirrored).all()
    assert 4 < mirrored.sum() < 28


def test_same_seed_same_bytes_and_another_seed_others(pictures):
    first, again, other = (draw(32, seed, **EVERYTHING) for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert (first != other).any()
    assert done(pictures, first, **EVERYTHING).tobytes() == done(pictures, again, **EVERYTHING).tobytes()


# Test-time views


def shown(pictures, view, crop=48):
    assert (view.shape, view.dtype) == ((8,), "float32")
    return keras.ops.convert_to_numpy(augment.show(pictures, np.tile(view, (len(pictures), 1)), crop))


@pytest.mark.parametrize("crop", [48, 40])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 2])
def test_views_are_the_picture_its_mirror_image_and_both_shifted_four_ways(crop, flip, shift, pictures):
    edge = (48 - crop) // 2
    steps = [(0, 0)] + [(x, y) for x in (-shift, shift) for y in (-shift, shift)] * (shift > 0)
    wanted = []
    for x, y in steps:
        rows, columns = (np.clip(np.arange(edge, 48 - edge) + step, 0, 47) for step in (y, x))
        moved = pictures[:, rows][:, :, columns]
        wanted += [moved, moved[:, :, ::-1]] if flip else [moved]
    found = augment.tta_maps(recipe(crop=crop, tta_flip=flip, tta_shift=shift))
    assert len(found) == (5 if shift else 1) * (2 if flip else 1) == len(wanted)
    images = [shown(pictures, view, crop) for view in found]
    assert (images[0] == pictures[:, edge : 48 - edge, edge : 48 - edge]).all()
    for image in wanted:  # each exactly, in whatever order
        assert sum(bool((image == one).all()) for one in images) == 1


@pytest.mark.parametrize("crop", [48, 40])
def test_zoomed_views_come_last_and_show_less_and_more_around_the_middle(crop):
    how = {"crop": crop, "tta_flip": True, "tta_shift": 2}
    found = augment.tta_maps(recipe(tta_zoom=0.125, **how))
    np.testing.assert_array_equal(found[:10], augment.tta_maps(recipe(**how)))
    across, down = np.meshgrid(np.arange(crop) - (crop - 1) / 2, np.arange(crop) - (crop - 1) / 2)
    ramp = np.tile(RAMP, (48, 1))  # of which each pixel says where it is
    places = np.stack([ramp, ramp.T])[..., None]
    wanted = [(sign * factor, factor) for factor in (0.875, 1.125) for sign in (1, -1)]
    assert len(found[10:]) == len(wanted)
    for view, (sideways, upright) in zip(found[10:], wanted, strict=True):
        columns, rows = shown(places, view, crop)[..., 0]
        np.testing.assert_allclose(columns, np.clip(MIDDLE + sideways * across, 0, 47), atol=1e-4)
        np.testing.assert_allclose(rows, np.clip(MIDDLE + upright * down, 0, 47), atol=1e-4)


# Contrast


def equalised(picture):
    """Each grey level becomes the middle of the ranks of its pixels among all, 0 to 255."""
    return np.array([[((picture < level).mean() + (picture <= level).mean()) / 2 for level in row] for row in picture])


def locally_normalised(picture):
    """128, and 48 for every deviation (and 8) from the mean of the 13x13 pixels around; edges are mirrored."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(picture.astype("float64"), 6, "symmetric"), (13, 13))
    mean, deviation = around.mean((2, 3)), around.std((2, 3))
    return np.clip(128 + 48 * (picture - mean) / (deviation + 8), 0, 255)


@pytest.fixture
def dim():
    """Five pictures of low and different contrasts, uint8 [5, 48, 48]."""
    chance = np.random.default_rng(4)
    slopes = np.linspace(0, 60, 48) * np.linspace(0.2, 1, 5)[:, None, None]
    return (20 + slopes + chance.integers(0, 30, (5, 48, 48))).astype("uint8")


@pytest.mark.parametrize("kind", ["histogram", "local"])
def test_contrast_is_that_of_a_computation_picture_by_picture(kind, dim):
    found, before = contrasts.normalise(dim, kind), dim.copy()
    assert (found.dtype, found.shape) == ("uint8", dim.shape)
    assert (dim == before).all(), "the pictures that were given stay"
    for picture, normalised in zip(dim, found, strict=True):
        wanted = 255 * equalised(picture) if kind == "histogram" else locally_normalised(picture)
        np.testing.assert_allclose(normalised, wanted, atol=0.51)  # rounded to a grey level


@pytest.mark.parametrize("kind", ["histogram", "local"])
def test_constant_pictures_become_grey_and_no_picture_depends_on_those_around_it(kind):
    for level in (0, 1, 128, 255):
        assert (contrasts.normalise(np.full((2, 48, 48), level, "uint8"), kind) == 128).all()
    pixels = np.random.default_rng(0).integers(0, 256, (1030, 48, 48)).astype("uint8")  # more than one part
    found = contrasts.normalise(pixels, kind)
    for one in (0, 1023, 1024, 1029):
        assert (contrasts.normalise(pixels[[one]], kind)[0] == found[one]).all()
