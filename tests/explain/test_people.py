"""The people of a result: their places, verdicts and sentences."""

import pytest
from people_factory import face, result_with, two_people

from modeling_avlmm.explain.people import (
    describe_people,
    fake_passages,
    most_suspicious,
    people_of,
    person_line,
    places,
)


def test_a_result_without_faces_has_no_people_and_says_nothing():
    older = {name: value for name, value in result_with(None).items() if name != "faces"}
    for result in (result_with(None), older):
        assert people_of(result) is None and describe_people(result) == []
    assert people_of(result_with([])) == [] and describe_people(result_with([])) == [
        "No face was found in the picture."
    ]


def test_two_people_in_words():
    result = result_with(two_people())
    left, right = people_of(result)
    assert (left.name, left.span, left.verdict) == ("person 1 (left)", "0:00.0 to 0:09.0", "called fake")
    assert (right.name, right.span, right.verdict) == (
        "person 2 (right)",
        "0:01.0 to 0:07.0",
        "not called fake",
    )
    assert left.strongest == {"start": 3.0, "end": 6.0, "score": 0.96, "label": "fake"}
    assert describe_people(result) == [
        "2 faces were found; the picture's score is that of person 1 (left).",
        "Person 1 (left), 0:00.0 to 0:09.0: called fake, 0.60; highest 0.96 from 0:03.0 to 0:06.0.",
        "Person 2 (right), 0:01.0 to 0:07.0: not called fake, 0.09; highest 0.12 from 0:05.0 to 0:07.0.",
        "The sound is scored once for all of them: not called fake, 0.10. Whose voice it is, is not known.",
    ]


def test_one_face_and_faces_that_were_not_scored():
    assert describe_people(result_with([face(0, 0.0, 2.0, [0.3], left=0.4)])) == [
        "One face was found, from 0:00.0 to 0:02.0."
    ]
    small = face(0, 0.0, 2.0, [None], left=0.4)
    assert describe_people(result_with([small])) == [
        "One face was found, from 0:00.0 to 0:02.0; it was not scored."
    ]
    (person,) = people_of(result_with([small]))
    assert person.strongest is None and person_line(person) == "person 1, 0:00.0 to 0:02.0: not scored"


def test_of_many_people_the_most_suspicious_are_named_in_order():
    faces = [
        face(n, float(n), n + 0.8, [score], left=0.4) for n, score in enumerate((0.1, 0.9, None, 0.3, 0.7))
    ]
    people = people_of(result_with(faces[::-1]))
    assert [person.number for person in people] == [1, 2, 3, 4, 5]
    assert [person.number for person in most_suspicious(people, 2)] == [2, 5]
    lines = describe_people(result_with(faces), limit=2)
    assert lines[1].startswith("Person 2,") and lines[2].startswith("Person 5,")
    assert lines[3] == "3 more have lower scores or none."


def test_places_are_among_those_on_screen_together():
    alone = face(0, 0.0, 2.0, [0.1], left=0.05)
    assert places([alone, face(1, 3.0, 4.0, [0.1], left=0.7)]) == [None, None]
    # The second and the third are never on screen together: both are on the right of the first.
    whole, early, late = (
        face(0, 0.0, 9.0, [0.1], 0.1),
        face(1, 0.0, 4.0, [0.1], 0.6),
        face(2, 5.0, 9.0, [0.1], 0.7),
    )
    assert places([whole, early, late]) == ["left", "right", "right"]
    row = [face(n, 0.0, 2.0, [0.1], left) for n, left in enumerate((0.5, 0.0, 0.8))]
    assert places(row) == ["middle", "left", "right"]
    column = [face(n, 0.0, 2.0, [0.1], left=0.4 + 0.01 * n, top=top) for n, top in enumerate((0.55, 0.0))]
    assert places(column) == ["bottom", "top"]
    four = [face(n, 0.0, 2.0, [0.1], left) for n, left in enumerate((0.0, 0.25, 0.5, 0.75))]
    assert places(four)[1] == "second from the left"


def test_a_box_lies_between_its_neighbours_and_only_in_its_time():
    moving = face(0, 1.0, 2.0, [0.1], left=0.1)
    moving["boxes"] = [{"time": 1.0, "box": [0.0, 0.1, 0.2, 0.5]}, {"time": 2.0, "box": [0.4, 0.3, 0.6, 0.7]}]
    (person,) = people_of(result_with([moving]))
    assert person.box_at(1.5) == pytest.approx((0.2, 0.2, 0.4, 0.6))
    assert person.box_at(0.95) == pytest.approx((0.0, 0.1, 0.2, 0.5))
    assert person.box_at(0.8) is None and person.box_at(2.2) is None


def test_windows_are_cut_to_the_time_of_the_face():
    late = face(0, 1.0, 2.0, [0.9], left=0.1, windows=[{"start": 0.0, "end": 3.0, "video_score": 0.9}])
    (person,) = people_of(result_with([late]))
    assert person.windows == [{"start": 1.0, "end": 2.0, "score": 0.9, "label": "fake"}]


def test_passages_called_fake_are_joined():
    result = result_with([*two_people(), face(2, 8.0, 9.0, [None], left=0.4)])
    assert [fake_passages(person) for person in people_of(result)] == [
        "Person 1 (left): called fake from 0:03.0 to 0:09.0.",
        "Person 2 (right): called fake in no window.",
        "Person 3 (right): not scored.",
    ]
