from animaray.models.pose.layouts import FACE_POINTS, LIMBS, MIRROR, NUM_KEYPOINTS, OPENPOSE_18


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
