"""Instruction conversations: deterministic, grammatical, and limited to the facts."""

from __future__ import annotations

import json
import re
import string
import warnings
from collections import Counter

import pytest

from modeling_avlmm.dialogue.clip_facts import known_clip
from modeling_avlmm.dialogue.families import FAMILIES, TASKS
from modeling_avlmm.dialogue.instructions import (
    FEATURES,
    InstructionError,
    InstructionWarning,
    build_instructions,
    to_trl,
)
from modeling_avlmm.dialogue.phrasing import TEMPLATES, named_in, templates
from modeling_avlmm.explain.evidence import Evidence, Finding
from modeling_avlmm.explain.regions import FACE_REGIONS, SOUND_BANDS

GENUINE = {"label": 0, "video_label": 0, "audio_label": 0, "generator": "real", "audio_generator": "real"}
SWAP = {"label": 1, "video_label": 1, "audio_label": 0, "generator": "faceswap", "audio_generator": "real"}
VOICE = {"label": 1, "video_label": 0, "audio_label": 1, "generator": "real", "audio_generator": "rtvc"}
BOTH = {"label": 1, "video_label": 1, "audio_label": 1, "generator": "wav2lip", "audio_generator": "rtvc"}
UNKNOWN = {"label": 1, "video_label": None, "audio_label": None, "generator": None, "audio_generator": None}
HALF = {"label": 1, "video_label": 1, "audio_label": None, "generator": "roop", "audio_generator": None}
KINDS = {"genuine": GENUINE, "swap": SWAP, "voice": VOICE, "both": BOTH, "unknown": UNKNOWN, "half": HALF}


def clip(kind: str, number: int = 0, **more) -> dict:
    path = f"{kind}/{number}.mp4"
    base = {"video": f"/corpus/{path}", "audio": None, "path": path, "source": None, "fake_segments": None}
    return {**base, **KINDS[kind], **more}


def measured(**more) -> Evidence:
    values = {
        "fake": "a",
        "source": "b",
        "duration": 4.0,
        "picture": [Finding("mouth", 3.0, [[0.4, 1.2]]), Finding("outside", 2.0, [[0.0, 4.0]]),
                    Finding("eyes", 1.5, [[1.4, 2.0]])],
        "sound": [Finding("1_3_khz", 2.0, [[2.6, 3.0]]), Finding("below_300_hz", 1.2, [[2.6, 3.0]])],
        "picture_map": {"mouth": [1.0]},
        "sound_map": {"1_3_khz": [1.0]},
        "offset": -0.08,
    }  # fmt: skip
    return Evidence(**{**values, **more})


def facts_of(row: dict, evidence: Evidence | None = None) -> dict:
    return known_clip(row, evidence).facts


def texts(row: dict, role: str) -> list[str]:
    return [
        part["text"]
        for message in row["messages"]
        if message["role"] == role
        for part in message["content"]
        if part["type"] == "text"
    ]


def many(count: int = 40, **more) -> tuple[list[dict], dict[str, Evidence]]:
    rows = [clip(kind, number, **more) for kind in KINDS for number in range(count)]
    return rows, {row["path"]: measured() for row in rows if row["label"] == 1 and int(row["path"][-5]) % 2}


@pytest.fixture(scope="module")
def made() -> list[dict]:
    rows, evidence = many()
    return list(build_instructions(rows, evidence=evidence, per_clip=3))


def test_rows_have_the_promised_columns(made):
    assert list(made[0]) == list(FEATURES) and len(made) == 240 * 4 * 3
    for row in made:
        facts = json.loads(row["facts"])
        assert set(facts) == {
            "label", "modalities", "family", "generator", "regions", "bands", "segments", "offset", "measured"
        }  # fmt: skip
        assert facts["label"] == row["label"] and facts["family"] == row["family"]
        assert facts["generator"] == row["generator"] and row["task"] in TASKS
        assert row["family"] is None or row["family"] in FAMILIES
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        first = row["messages"][0]["content"]
        assert [part["type"] for part in first] == ["video", "text"] and first[0]["text"] is None
        assert row["video"] == {"bytes": None, "path": f"/corpus/{row['path']}"}
        turns = len(roles) // 2
        assert 2 <= turns <= 4 if row["task"] == "conversation" else turns == 1


def test_a_clip_without_a_picture_is_a_recording():
    row = build_instructions(
        [clip("voice", video=None, audio="/corpus/a.wav")], ["conversation", "description"], per_clip=9
    )
    for one in row:
        assert one["messages"][0]["content"][0]["type"] == "audio" and one["audio"] == "/corpus/a.wav"
        said = " ".join(texts(one, "user") + texts(one, "assistant"))
        assert "clip" not in said.lower() and not re.search(r"\bface\b.*regions|regions.*\bface\b", said)


def test_descriptions_name_all_facts_and_nothing_else(made):
    seen = Counter()
    for row in (row for row in made if row["task"] == "description"):
        facts, named = json.loads(row["facts"]), named_in(texts(row, "assistant")[0])
        assert named.modalities == set(facts["modalities"])
        assert named.regions == set(facts["regions"]) and named.bands == set(facts["bands"])
        assert named.segments == {tuple(segment) for segment in facts["segments"]}
        assert named.offset == facts["offset"]
        assert named.forged == bool(row["label"]), texts(row, "assistant")
        seen[bool(named.regions), bool(named.bands), bool(named.segments), bool(facts["offset"])] += 1
    assert len(seen) > 3


def test_every_answer_names_facts_only(made):
    for row in made:
        facts = json.loads(row["facts"])
        for answer in texts(row, "assistant"):
            named = named_in(answer)
            assert named.modalities <= set(facts["modalities"]), answer
            assert named.regions <= set(facts["regions"]) and named.bands <= set(facts["bands"]), answer
            assert named.segments <= {tuple(segment) for segment in facts["segments"]}
            assert named.offset in (None, facts["offset"])


def test_detection_answers_both_polarities(made):
    library = templates("detection")
    seen = Counter()
    for row in (row for row in made if row["task"] == "detection"):
        question, answer = texts(row, "user")[0], texts(row, "assistant")[0]
        word = answer.split()[0].strip(".,:")
        polarity = next(
            name
            for name, part in library.items()
            if question
            in [q.format(clip="clip")[0].upper() + q.format(clip="clip")[1:] for q in part["questions"]]
        )
        expected = {
            "asks_fake": ("No", "Yes"),
            "asks_real": ("Yes", "No"),
            "asks_either": ("Real", "Fake"),
        }[polarity][row["label"]]
        assert word == expected
        seen[polarity, row["label"]] += 1
    # Three conversations about each clip: one of each polarity.
    assert {count for (_, label), count in seen.items() if label == 0} == {40}
    assert {count for (_, label), count in seen.items() if label == 1} == {200}


def test_phrasings_are_used_evenly():
    rows = [clip("swap", number) for number in range(600)]
    for task, case in (("classification", "family"), ("description", None)):
        made = build_instructions(rows, [task])
        counts = Counter(texts(row, "user")[0] for row in made)
        questions = templates(task)[case]["questions"] if case else templates(task)["questions"]
        assert len(counts) >= len(questions)
        assert max(counts.values()) < 3 * 600 / len(questions)


def test_the_same_seed_and_path_give_the_same_texts_whatever_else_is_there():
    rows, evidence = many(3)
    whole = {(r["path"], r["task"]): r["messages"] for r in build_instructions(rows, evidence=evidence)}
    for row in build_instructions(rows[::-2], ["conversation", "detection"], evidence=evidence):
        assert row["messages"] == whole[row["path"], row["task"]]
    other = build_instructions(rows, evidence=evidence, seed=1)
    assert any(row["messages"] != whole[row["path"], row["task"]] for row in other)


def test_conversations_of_one_clip_differ():
    made = build_instructions([clip("swap")], ["detection", "description"], per_clip=6)
    for task in ("detection", "description"):
        assert len({json.dumps(row["messages"]) for row in made if row["task"] == task}) == 6


def test_labels_have_the_last_word_over_measurements():
    assert facts_of(clip("swap"), measured())["bands"] == []
    assert facts_of(clip("voice"), measured())["regions"] == []
    assert facts_of(clip("genuine"), measured())["segments"] == []
    both = facts_of(clip("both"), measured())
    assert both["regions"] == ["mouth", "eyes"] and both["bands"] == ["below_300_hz", "1_3_khz"]
    # Texts name the strongest region first.
    row = build_instructions([clip("both")], ["description"], evidence={clip("both")["path"]: measured()})[0]
    assert "the mouth and the eyes" in texts(row, "assistant")[0]
    assert both["segments"] == [[0.4, 2.0], [2.6, 3.0]] and both["offset"] == -0.08 and both["measured"]
    annotated = facts_of(clip("both", fake_segments=[[0.1234, 0.5]]), measured())
    assert annotated["segments"] == [[0.12, 0.5]]
    assert facts_of(clip("unknown"), measured())["modalities"] == ["picture", "sound"]
    assert facts_of(clip("unknown"))["modalities"] == [] and facts_of(clip("unknown"))["family"] is None
    many_segments = [[float(k), k + 0.2 + 0.01 * k] for k in range(8)]
    facts = facts_of(clip("swap"), measured(picture=[Finding("mouth", 2.0, many_segments)]))
    assert facts["segments"] == many_segments[3:]


def test_generators_of_all_forged_tracks_are_named():
    assert facts_of(clip("both"))["generator"] == "wav2lip+rtvc"
    assert facts_of(clip("genuine"))["generator"] == "real" and facts_of(clip("unknown"))["generator"] is None
    made = build_instructions([clip("both", n) for n in range(30)], ["classification"])
    said = [texts(row, "assistant")[0] for row in made]
    assert any("Wav2Lip and SV2TTS" in answer for answer in said)


def test_a_segment_of_the_whole_clip_is_told_as_such():
    evidence = {"swap/0.mp4": measured(picture=[Finding("mouth", 2.0, [[0.0, 4.0]])], offset=None)}
    row = build_instructions([clip("swap")], ["description"], evidence=evidence)[0]
    whole = [text.format(clip="clip", segments="0 s to 4 s") for text in templates("description")["whole"]]
    assert any(text in texts(row, "assistant")[0] for text in whole)


def _placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def _lists(node, trail=()):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _lists(value, (*trail, key))
    elif isinstance(node, list):
        yield trail, node


def test_libraries_are_large_and_well_formed():
    assert {path.stem for path in TEMPLATES.glob("*.yaml")} >= set(TASKS)
    known = {"clip", "family", "definition", "generator", "regions", "region", "bands", "segments", "offset"}
    for task in TASKS:
        for trail, lines in _lists(templates(task)):
            if "definitions" in trail or trail[-1] == "questions_video":
                least = 2
            else:
                least = 12 if trail[-1] == "questions" else 6
            assert len(lines) >= least and len(set(lines)) == len(lines), (task, trail, len(lines))
            for line in lines:
                assert isinstance(line, str), (task, trail, line)
                assert _placeholders(line) <= known, line
                assert line[-1] in ".?!}" and "  " not in line, line
                assert line[0].isupper() or line[0] == "{", line


def test_texts_have_no_doubled_articles_or_holes(made):
    for row in made:
        for text in texts(row, "user") + texts(row, "assistant"):
            assert not re.search(r"\b(the the|a a|around in|at at|from from)\b|[{}]|\.\.|\s[.,]", text), text
            assert text[0].isupper() and text[-1] in ".?!"


def test_a_rewrite_is_taken_only_when_it_says_the_same():
    rows, evidence = [clip("swap", n) for n in range(8)], {f"swap/{n}.mp4": measured() for n in range(8)}
    plain = build_instructions(rows, evidence=evidence)
    seen = []

    def polite(text: str, facts: dict) -> str:
        seen.append(facts["label"])
        facts.clear()  # has no effect
        return f"{text} Thank you."

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = build_instructions(rows, evidence=evidence, rewrite=polite)
    assert set(seen) == {1}
    for row, before in zip(made, plain, strict=True):
        assert texts(row, "assistant") == [f"{text} Thank you." for text in texts(before, "assistant")]
    for wrong in (
        lambda text, facts: "",
        lambda text, facts: None,
        lambda text, facts: f"{text} Also the forehead is forged.",
        lambda text, facts: f"{text} From 7 s to 8 s.",
        lambda text, facts: f"{text} The sound is forged.",
    ):
        with pytest.warns(InstructionWarning, match="rewritten answers"):
            refused = build_instructions(rows, ["description"], evidence=evidence, rewrite=wrong)
        assert refused["messages"] == plain.filter(lambda row: row["task"] == "description")["messages"]
    with pytest.warns(InstructionWarning, match="8 of 8"):
        build_instructions(rows, ["detection"], rewrite=lambda text, facts: "Perhaps.")


def test_bad_arguments_are_named():
    with pytest.raises(InstructionError, match="detektion"):
        build_instructions([clip("swap")], ["detektion"])
    with pytest.raises(InstructionError, match="per_clip"):
        build_instructions([clip("swap")], per_clip=0)
    with pytest.raises(InstructionError, match="no rows"):
        build_instructions([])
    with pytest.raises(InstructionError, match="cast_column"):
        build_instructions([clip("swap", video=object())])


def test_messages_for_trainers_hold_the_clip():
    row = build_instructions([clip("swap")], ["conversation"])[0]
    messages = to_trl(row)["messages"]
    assert messages[0]["content"][0] == {"type": "video", "video": "/corpus/swap/0.mp4"}
    assert messages[0]["content"][1]["type"] == "text" and set(messages[1]["content"][0]) == {"type", "text"}


def test_named_in_reads_what_is_claimed_and_not_what_is_denied():
    named = named_in("The picture was forged around the eyes and the jawline. The mouth is not affected.")
    assert named.regions == {"eyes", "jaw"} and named.modalities == {"picture"} and named.forged
    named = named_in(
        "It is off at 1 to 3 kHz and below 300 Hz, from 0.4 s to 1.25 s; the voice is 0.08 s early."
    )
    assert named.bands == {"1_3_khz", "below_300_hz"}
    assert named.segments == {(0.4, 1.25)} and named.offset == -0.08
    assert named_in("The sound is genuine.").modalities == frozenset()
    assert set(FACE_REGIONS) >= named.regions and set(SOUND_BANDS) >= named.bands
