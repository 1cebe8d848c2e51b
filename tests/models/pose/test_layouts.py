from animaray.models.pose.layouts import (
    FACE,
    FACE_POINTS,
    FEET,
    FURTHER_MIRROR,
    LEFT_HAND,
    LIMBS,
    MIRROR,
    NUM_FURTHER_POINTS,
    NUM_KEYPOINTS,
    OPENPOSE_18,
    RIGHT_HAND,
)


def test_mirror_swaps_left_and_right():
    for index, mirrored in enumerate(MIRROR):
        name, other = OPENPOSE_18[index], OPENPOSE_18[mirrored]
        swapped = name.replace("right", "?").replace("left", "right").replace("?", "left")
        assert other == swapped
        assert MIRROR[mirrored] == index


def test_limbs_form_a_tree_over_all_keypoints():
    reached = {LIMBS[0][0]}
    for _ in LIMBS:
        reached |= {end for limb in LIMBS for end in limb if reached & set(limb)}
    assert reached == set(range(NUM_KEYPOINTS))
    assert len(LIMBS) == NUM_KEYPOINTS - 1


def test_face_points_belong_to_the_head():
    names = {OPENPOSE_18[index] for index in FACE_POINTS}
    assert names == {"nose", "right_eye", "left_eye", "right_ear", "left_ear"}


def test_the_parts_fill_the_further_points():
    parts = (FEET, FACE, LEFT_HAND, RIGHT_HAND)
    assert [part.stop - part.start for part in parts] == [6, 68, 21, 21]
    assert [*range(NUM_FURTHER_POINTS)] == [i for part in parts for i in range(*part.indices(200))]


def test_further_points_have_mirror_images_in_the_part_they_belong_to():
    assert [FURTHER_MIRROR[each] for each in FURTHER_MIRROR] == [*range(NUM_FURTHER_POINTS)]
    assert FURTHER_MIRROR[LEFT_HAND] == tuple(range(95, 116))
    face = [each - FACE.start for each in FURTHER_MIRROR[FACE]]
    assert sorted(face) == [*range(68)]
    # Chin, nose and the middles of the lips lie on the middle line; outer corners of eyes swap.
    middle = [index for index, each in enumerate(face) if index == each]
    assert middle == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert face[36] == 45
    assert face[60] == 64
    assert FURTHER_MIRROR[FEET] == (3, 4, 5, 0, 1, 2)
