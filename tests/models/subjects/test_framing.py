import numpy as np
import pytest

from animaray.models.subjects.framing import FrameFit, largest_part_without
from animaray.platform.errors import ConfigError


def person(*corners):
    points = np.zeros((1, 18, 2), np.float32)
    points[0] = corners[0]
    points[0, 1:] = corners[1]
    return points


def test_same_size_is_the_identity():
    fit = FrameFit.for_person((64, 48), None, 64, 48)
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert np.array_equal(fit.apply_frames(picture[None])[0], picture)
    points = np.array([[3.0, 4.0]], np.float32)
    assert np.allclose(fit.apply_points(points), points)


def test_half_size_averages_blocks():
    fit = FrameFit.for_person((8, 8), None, 4, 4)
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(3, axis=2)
    blocks = picture.reshape(4, 2, 4, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(fit.apply_picture(picture) - blocks).max() <= 0.5


def test_window_follows_the_person_along_the_cropped_axis():
    # A 200 x 100 picture to a square: window 100 x 100; person at the right edge.
    fit = FrameFit.for_person((200, 100), person((150, 20), (190, 80)), 50, 50)
    assert (fit.left_px, fit.top_px) == (100, 0)
    middle = FrameFit.for_person((200, 100), person((80, 20), (100, 80)), 50, 50)
    assert (middle.left_px, middle.top_px) == (40, 0)


def test_window_grows_for_a_wide_person_and_is_padded():
    # Person 150 wide in a square target: 150 * 1.16 = 174 > 100, so the height is padded.
    fit = FrameFit.for_person((200, 100), person((20, 40), (170, 60)), 87, 87)
    assert fit.scale == pytest.approx(0.5)
    assert fit.top_px == pytest.approx((100 - 174) / 2)
    corners = fit.apply_points(np.array([[20.0, 40.0], [170.0, 60.0]]))
    assert (corners > 0).all() and (corners < 87).all()  # noqa: PT018


def test_padding_repeats_the_edge():
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:50] = 200
    fit = FrameFit.for_person((200, 100), person((0, 40), (199, 60)), 50, 50)
    framed = fit.apply_picture(picture)
    assert (framed[0] == 200).all()
    assert (framed[-1] == 0).all()


def test_nothing_is_stretched():
    # Equal steps in x and y stay equal, whatever the aspects.
    fit = FrameFit.for_person((640, 360), person((300, 50), (350, 350)), 192, 320)
    moved = fit.apply_points(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]))
    assert moved[1, 0] - moved[0, 0] == pytest.approx(moved[2, 1] - moved[0, 1], rel=1e-5)


@pytest.mark.parametrize(("size", "target"), [((96, 96), 32), ((60, 90), 48), ((33, 47), 96)])
def test_pictures_and_points_agree(size, target):
    # One bright dot lands where its point lands.
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    x, y = size[0] // 2, size[1] // 2
    picture[y - 2 : y + 3, x - 2 : x + 3] = 255
    fit = FrameFit.for_person(size, None, target, target)
    framed = fit.apply_picture(picture)[..., 0].astype(float)
    rows, columns = np.mgrid[:target, :target]
    centroid = np.array([(framed * columns).sum(), (framed * rows).sum()]) / framed.sum()
    assert np.allclose(centroid, fit.apply_points(np.array([[x, y]], float))[0], atol=0.1)


def test_zoom_shrinks_the_window_to_the_person_within_the_limit():
    box = person((90, 90), (110, 110))
    wide = FrameFit.for_person((200, 200), box, 100, 100)
    close = FrameFit.for_person((200, 200), box, 100, 100, max_zoom=2.0)
    closer = FrameFit.for_person((200, 200), box, 100, 100, max_zoom=100.0)
    assert wide.scale == pytest.approx(0.5)
    assert close.scale == pytest.approx(1.0)
    assert closer.scale == pytest.approx(100 / (20 * 1.7))


def test_unseen_keypoints_do_not_count():
    points, confidence = person((0, 0), (199, 99)), np.zeros((1, 18), np.float32)
    fit = FrameFit.for_person((200, 100), points, 50, 50, keypoint_confidence=confidence)
    assert fit == FrameFit.for_person((200, 100), None, 50, 50)


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="Sizes must be positive"):
        FrameFit.for_person((0, 100), None, 50, 50)
    with pytest.raises(ConfigError, match="`max_zoom` must be at least 1"):
        FrameFit.for_person((10, 10), None, 50, 50, max_zoom=0.5)


def test_stretching_is_there_on_request_and_maps_points():
    from animaray.models.subjects.framing import stretch_picture

    picture = np.zeros((100, 50, 3), np.uint8)
    picture[60:, :] = 255
    fit = FrameFit.stretched((50, 100), 64, 32)
    framed = fit.apply_picture(picture)
    assert np.array_equal(framed, stretch_picture(picture, 64, 32))
    # 60 % of the height down, whatever the aspect.
    assert (framed[:17] == 0).all()
    assert (framed[22:] == 255).all()
    points = np.array([[0.0, 59.5], [49.5, 99.5]])
    assert np.allclose(fit.apply_points(points), [[0.14, 18.7], [63.5, 31.5]], atol=1e-3)


def test_text_is_cut_away_where_the_person_stays_whole():
    # A caption along the bottom, a logo at the upper left; the person stands in the middle.
    boxes = np.array([[0.0, 170.5, 400.0, 200.0], [5.0, 5.0, 60.0, 20.0]])
    part = largest_part_without(boxes, (400, 200), person((180, 40), (220, 150)))
    assert part == (0, 20, 400, 170)
    # Above the head there is no room to cut, beside the person there is.
    tall = largest_part_without(boxes, (400, 200), person((180, 5), (220, 150)))
    assert tall == (60, 0, 400, 170)
    assert largest_part_without(boxes, (400, 200), person((180, 40), (220, 180))) is None
    unseen = np.zeros((1, 18), np.float32)
    assert largest_part_without(boxes, (400, 200), person((0, 0), (9, 9)), unseen) is None
    assert largest_part_without(boxes[:0], (400, 200), person((0, 0), (9, 9))) == (0, 0, 400, 200)


def test_nothing_beside_the_part_is_shown_and_points_stay_where_they_are():
    picture = np.full((200, 400, 3), 90, np.uint8)
    picture[170:] = 255
    body = person((120, 10), (280, 150))
    fit = FrameFit.for_person((400, 170), body, 64, 128).within((0, 0, 400, 170))
    assert fit.top_px < 0  # padded above and below
    assert (fit.apply_picture(picture) == 90).all()
    lower = FrameFit.for_person((400, 150), body - (0, 20), 64, 128).within((0, 20, 400, 170))
    nose = lower.apply_points(np.array([[200.0, 30.0]], np.float32))[0]
    marked = picture.copy()
    marked[28:33, 198:203] = 0
    dark = np.argwhere(lower.apply_picture(marked)[..., 0] < 60).mean(axis=0)
    assert np.abs(dark[::-1] - nose).max() < 1.0
