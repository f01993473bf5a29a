"""Parsing of answers: every template is parsed as it is meant."""

from modeling_avlmm.dialogue.answer_parsing import (
    Claims,
    claims_of,
    contradictions,
    family_in,
    first_place,
    polarity,
)
from modeling_avlmm.dialogue.families import FAMILIES
from modeling_avlmm.dialogue.phrasing import templates


def filled(text):
    return text.format(
        clip="clip",
        region="the mouth",
        regions="the eyes and the mouth",
        bands="below 300 Hz",
        segments="0.4 s to 1.2 s",
        offset="0.08 s late",
        family="a face swap",
        definition="",
        generator="FSGAN",
    )


def test_every_verdict_template_is_read_as_meant():
    for library in templates("detection").values():
        for question in library["questions"]:
            for label, answers in library["answers"].items():
                for answer in answers:
                    expected = {"real": 0, "fake": 1}[label]
                    assert claims_of(filled(answer), filled(question)).overall == expected, (question, answer)


def test_no_template_contradicts_the_label_it_is_for():
    description, more = templates("description"), templates("conversation")
    genuine = [*description["genuine"], *templates("classification")["family"]["answers"]["genuine"]]
    fake = [
        text
        for name in ("regions", "bands", "segments", "whole", "offset", "unlocated")
        for text in description[name]
    ]
    fake += [text for part in description["opening"].values() for text in part]
    fake += templates("classification")["family"]["answers"]["unknown"]
    for name in ("how_sure", "next", "modality"):
        for case, answers in more[name]["answers"].items():
            (genuine if case.startswith("genuine") else fake).extend(answers)
    for name in ("where", "when"):
        genuine += more[name]["genuine"]
        fake += more[name]["unlocated"]
    fake += [text for case in ("yes", "no") for text in more["region_check"]["answers"][case]]
    wrong = [text for text in genuine if claims_of(filled(text)).overall == 1]
    wrong += [text for text in fake if claims_of(filled(text)).overall == 0]
    assert wrong == []


def test_every_family_template_is_read_as_meant():
    library = templates("classification")
    for family, name in library["names"].items():
        for answer in library["family"]["answers"]["fake"]:
            for definition in library["definitions"][family]:
                text = answer.format(family=name, definition=definition, clip="clip")
                assert family_in(text) == family, text
    for definition in library["definitions"]["both"]:
        for answer in library["family"]["answers"]["both"]:
            assert family_in(answer.format(definition=definition)) == "both", answer
    for answer in library["family"]["answers"]["genuine"]:
        assert family_in(filled(answer)) == "genuine", answer
    for answer in library["family"]["answers"]["unknown"]:
        assert family_in(filled(answer)) is None, answer
    assert set(library["names"]) | {"both", "genuine"} == set(FAMILIES)


def test_claims_and_polarity():
    assert [polarity(q) for q in ("Is this fake?", "Can I trust this clip?", "Real or fake?", "Where?")] == [
        1,
        0,
        None,
        None,
    ]
    assert polarity("Was anything altered around the mouth?") is None
    assert claims_of("The picture is fake. The sound is genuine.") == Claims(1, 1, 0)
    assert claims_of("The picture is genuine.") == Claims(None, 0, None)
    assert claims_of("The picture is genuine. The sound is genuine too.") == Claims(0, 0, 0)
    problem = "The sound is the problem. The picture appears to be genuine."
    assert claims_of(problem) == Claims(1, 0, 1)
    assert contradictions(problem, "", {"overall": 0.9, "video": 0.1, "audio": 0.9}) == []
    assert claims_of("No.", "Is this clip genuine?") == Claims(1, None, None)
    assert claims_of("Perhaps so.", "Is this clip genuine?") == Claims(None, None, None)
    assert claims_of("") == Claims(None, None, None)
    assert first_place("Look at the mouth and the eyes.") == "mouth"
    assert first_place("I see nothing at the mouth.") is None
    assert first_place("Listen for it at 1 to 3 kHz and below 300 Hz.", bands=True) == "1_3_khz"
    assert contradictions("Real.", "", {"overall": 0.4, "video": None, "audio": None}, 0.3) == [
        "The answer calls the clip real; the detector measured fake (score 0.40)."
    ]
    scores = {"overall": 0.4, "video": 0.4, "audio": None}
    assert contradictions("The picture is fake.", "", scores, 0.3, independent=True) == []
    assert len(contradictions("The picture is fake.", "", scores, 0.3)) == 1
