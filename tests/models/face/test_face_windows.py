import numpy as np
import pytest

from animaray.models.face.windows import (
    cell_boxes,
    cell_mask,
    face_boxes_px,
    plan_window,
)


class SquareEmbedder:
    """Takes crops of 16 px."""

    name, embedding_dim, crop_height_px, crop_width_px = "square", 3, 16, 16

    def template(self):
        return np.array([[5, 5], [11, 5], [8, 8], [6, 11], [10, 11]], np.float32)

    def embed(self, frame, landmarks):
        raise NotImplementedError

    def embed_crops(self, crops):
        raise NotImplementedError


def test_the_box_is_the_crops_footprint():
    # Template moved by (100, 40) and doubled: the crop's pixels 0..15 lie at 100..130, 40..70.
    landmarks = 2 * SquareEmbedder().template()[None] + np.array([100, 40], np.float32)
    box = face_boxes_px(landmarks, SquareEmbedder())
    np.testing.assert_allclose(box[0], [[100, 40], [130, 70]], atol=1e-4)


def test_cells_cover_the_box_and_the_pixel_beside_it():
    box = np.array([[[8.6, 15.0], [22.0, 23.2]]])
    # x: pixels 8..22 are read, cells 1 and 2; y: 15..24, cells 1 to 3.
    assert cell_boxes(box, 8, (10, 10)).tolist() == [[[1, 1], [3, 4]]]
    outside = np.array([[[-40.0, 70.0], [-20.0, 300.0]]])
    assert cell_boxes(outside, 8, (10, 10)).tolist() == [[[0, 8], [1, 10]]]


def test_the_mask_has_the_box_and_its_margin():
    mask = cell_mask(np.array([[[2, 3], [4, 4]]]), 1, (6, 8))[0, 0].numpy()
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 1, 4)
    assert mask.sum() == 12


@pytest.mark.parametrize(
    ("box", "corner"),
    [
        ([[30, 20], [36, 26]], [25, 15]),
        ([[0, 0], [6, 6]], [0, 0]),
        ([[58, 34], [64, 40]], [48, 24]),
    ],
)
def test_windows_have_sides_of_whole_multiples_and_stay_inside(box, corner):
    window = plan_window(np.array([box]), (40, 64), margin=4)
    assert window.size == (16, 16)
    assert window.corners.tolist() == [corner]
    assert window.core_corners.tolist() == [box[0]]


def test_a_shared_window_holds_all_faces():
    faces = np.array([[[10, 10], [14, 15]], [[20, 8], [25, 12]]])
    window = plan_window(faces, (40, 64), margin=2, num_shared_frames=5)
    assert window.core_corners.tolist() == [[10, 8]] * 5
    assert window.core_size == (7, 15)
    assert window.size == (16, 24)
    assert window.select(1, 3).corners.shape == (2, 2)


def test_a_window_is_never_larger_than_the_frame():
    window = plan_window(np.array([[[1, 1], [9, 9]]]), (10, 12), margin=4)
    assert window.size == (10, 12)
    assert window.corners.tolist() == [[0, 0]]
