import numpy as np
import pytest

from animaray.models.perception.protocols import PersonPose
from animaray.models.subjects.choice import (
    Pairing,
    PersonChoice,
    SeenPerson,
    choose_people,
)
from animaray.models.subjects.motion import follow_people
from animaray.platform.errors import PersonChoiceError, PoseError


def seen(left, size, top=10.0):
    return SeenPerson(
        left_px=left, top_px=top, right_px=left + size / 2, bottom_px=top + size, size_px=size
    )


SMALL_LEFT, LARGE_MIDDLE, MEDIUM_RIGHT = seen(5.0, 20.0), seen(60.0, 100.0), seen(150.0, 80.0)
PEOPLE = [LARGE_MIDDLE, MEDIUM_RIGHT, SMALL_LEFT]


def choose(*texts, people=PEOPLE, option=None):
    choices = [PersonChoice.parse(text) for text in texts]
    return choose_people(people, choices, height_px=120, where="the picture", option=option)


@pytest.mark.parametrize(
    ("text", "place"),
    # The small one at the left is a bystander: only a point names it.
    [("left", 0), ("right", 1), ("largest", 0), ("1", 0), ("2", 1), ("170,50", 1), ("10, 20", 2)],
)
def test_each_way_of_naming_finds_its_person(text, place):
    assert choose(text) == [place]


def test_without_a_choice_the_largest_is_taken_or_the_user_is_asked():
    assert choose() == [0]
    with pytest.raises(PersonChoiceError, match=r"1 \(left, 83%.*2 \(right, 67%.*--person"):
        choose(option="--person")
    # A bystander is no reason to ask.
    assert choose(people=[LARGE_MIDDLE, SMALL_LEFT], option="--person") == [0]


def test_several_choices_keep_their_order_and_all_goes_from_left_to_right():
    assert choose("right", "left") == [1, 0]
    assert choose("all") == [0, 1]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["3"], "no person 3 in the picture"),
        (["199,119"], "Nobody is at 199,119"),
        (["1", "left"], "the same person"),
    ],
)
def test_wrong_choices_say_who_is_there(texts, message):
    with pytest.raises(PersonChoiceError, match=message) as caught:
        choose(*texts, people=[LARGE_MIDDLE, seen(110.0, 60.0)])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["middle", "0", "-1", "1,2,3", ""])
def test_what_is_no_choice_is_refused(text):
    with pytest.raises(PersonChoiceError, match="left, right, largest"):
        PersonChoice.parse(text)


def test_points_follow_the_size_of_the_picture():
    assert PersonChoice.parse("100,40").scaled(0.5).point_px == (50.0, 20.0)
    assert PersonChoice.parse("left").scaled(0.5) == PersonChoice.parse("left")


def test_castings_pair_people():
    assert Pairing.parse(["left"]).driving == (PersonChoice.parse("left"),)
    assert Pairing.parse(["all"]) == Pairing.parse([], ["all"])
    assert Pairing.parse(["all"]).is_all
    for persons, references in ((["1", "2"], []), (["1", "2"], ["1"]), (["all"], ["left"])):
        with pytest.raises(PersonChoiceError):
            Pairing.parse(persons, references)


class Walkers:
    """Two people who cross: one goes right and one goes left; the second is away in frame 3."""

    name = "walkers"

    def __init__(self):
        self.frame = -1

    def estimate(self, frame):  # noqa: ARG002
        self.frame += 1
        people = [_pose(20.0 + 12 * self.frame, 24.0)]
        if self.frame != 3:
            people.append(_pose(104.0 - 12 * self.frame, 30.0))
        # The order says nothing about who is who.
        return people[::-1] if self.frame % 2 else people


def _pose(x, size):
    keypoints = np.array([[x + size / 3, 8.0]] * 9 + [[x, 8.0 + size]] * 9, np.float32)
    return PersonPose(keypoints=keypoints, keypoint_confidence=np.ones(18, np.float32))


def test_people_are_followed_where_they_cross():
    people = follow_people(np.zeros((7, 64, 128, 3), np.uint8), Walkers())
    assert len(people.tracks) == 2
    (right_going,) = people.motions([PersonChoice.parse("left")])
    assert right_going.keypoints[:, 9, 0].tolist() == [20, 32, 44, 56, 68, 80, 92]
    (left_going,) = people.motions([PersonChoice.parse("right")])
    # Frame 3 is filled between its neighbours.
    assert left_going.keypoints[:, 9, 0].tolist() == [104, 92, 80, 68, 56, 44, 32]
    assert left_going.is_filled.tolist() == [False] * 3 + [True] + [False] * 3
    assert left_going.num_persons == 2
    assert people.motions()[0].keypoints[0, 9, 0] == 104  # the larger one


class Nobody:
    """Sees nobody."""

    name = "nobody"

    def estimate(self, frame):  # noqa: ARG002
        return []


def test_progress_is_told_and_nobody_is_refused():
    done = []
    with pytest.raises(PoseError, match="3 of 3 frames"):
        follow_people(np.zeros((3, 8, 8, 3), np.uint8), Nobody(), done.append)
    assert done == [1, 2, 3]
