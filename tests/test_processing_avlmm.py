"""The processor of AV-LMMDetect: equality with the stock one, and its additions."""

import numpy as np
import pytest
import torch
from media_factory import make_clip, random_clip
from transformers import Qwen2_5OmniProcessor

from modeling_avlmm import AVLMMProcessor, MediaError, Question
from modeling_avlmm.media_errors import UnreadableMediaError


@pytest.fixture(scope="module")
def processor(tiny_backbone):
    return AVLMMProcessor.from_backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def stock(tiny_backbone):
    return Qwen2_5OmniProcessor.from_pretrained(tiny_backbone)


def stock_batch(stock, processor, clip, fps):
    content = [{"type": "text", "text": processor.prompts["prefix"]}]
    content += [{"type": "video", "video": ""}] if clip.has_video else [{"type": "audio", "audio": ""}]
    content += [{"type": "text", "text": processor.prompts["overall"]}]
    system = [{"type": "text", "text": processor.prompts["system"]}]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
    text = stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    both = clip.has_video and clip.has_audio
    sizes = {"shortest_edge": processor.min_pixels, "longest_edge": processor.max_pixels}
    return stock(
        text=[text],
        videos=[clip.frames] if clip.has_video else None,
        audio=[clip.audio.numpy()] if clip.has_audio else None,
        return_tensors="pt",
        **({"load_audio_from_video": True, "audio_from_video_indices": [0]} if both else {}),
        videos_kwargs={"fps": fps, "do_sample_frames": False, "size": sizes},
    )


CASES = {
    "one chunk": {"frames": 4, "fps": 2.0, "seconds": 2.0},
    "sound longer than picture": {"frames": 8, "fps": 2.0, "seconds": 7.3},
    "picture longer than sound": {"frames": 24, "fps": 4.0, "seconds": 3.1},
    "odd number of frames": {"frames": 5, "fps": 1.0, "seconds": 5.3},
    "many chunks": {"frames": 20, "fps": 2.0, "seconds": 10.0},
    "one grid": {"frames": 2, "fps": 2.0, "seconds": 9.0},
    "picture alone": {"frames": 6, "fps": 2.0, "audio": False},
    "sound alone": {"seconds": 3.7, "video": False},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_the_stock_processor_where_the_sampling_is_the_same(processor, stock, tiny_model, case):
    clip = random_clip(**case)
    fps = case.get("fps", 2.0)
    ours, theirs = processor([clip]), stock_batch(stock, processor, clip, fps)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    both = clip.has_video and clip.has_audio
    seconds_per_grid = torch.tensor([2 / fps]) if clip.has_video else None
    if clip.has_audio:
        frames = ours["input_features"].shape[-1]
        assert int(theirs["feature_attention_mask"].sum()) == frames
        torch.testing.assert_close(
            ours["input_features"], theirs["input_features"][..., :frames], atol=1e-5, rtol=0
        )
    if clip.has_video:
        torch.testing.assert_close(ours["pixel_values_videos"], theirs["pixel_values_videos"])
        assert torch.equal(ours["video_grid_thw"], theirs["video_grid_thw"])
    positions, _ = tiny_model.thinker.get_rope_index(
        theirs["input_ids"],
        video_grid_thw=theirs.get("video_grid_thw"),
        attention_mask=theirs["attention_mask"],
        use_audio_in_video=both,
        audio_seqlens=theirs["feature_attention_mask"].sum(-1) if clip.has_audio else None,
        second_per_grids=seconds_per_grid,
    )
    if clip.has_video:
        assert torch.equal(ours["position_ids"], positions)
    else:
        # Without a picture the stock model numbers the tokens one after another.
        assert torch.equal(ours["position_ids"][0, 0], torch.arange(ours["input_ids"].shape[1]))


def test_a_single_picture_is_not_copied(processor):
    encoded = processor.encode(random_clip())
    batch = processor.collate([encoded])
    assert batch["pixel_values_videos"].data_ptr() == encoded["pixel_values_videos"].data_ptr()
    both = processor.collate([encoded, encoded])["pixel_values_videos"]
    assert torch.equal(both, torch.cat([encoded["pixel_values_videos"]] * 2))


def test_audio_is_padded_to_the_longest_of_the_batch(processor):
    batch = processor([random_clip(seconds=1.0), random_clip(seconds=2.5), random_clip(audio=False)])
    assert batch["input_features"].shape == (2, 128, 250)
    assert batch["feature_attention_mask"].sum(1).tolist() == [100, 250]


def test_true_frame_times_decide_the_interleave(processor):
    """Frames are 1.5 s apart: the grid that starts at 3 s lies in the second chunk of 2 s, at position 75."""
    clip = random_clip(frames=4, seconds=6.0)
    clip.timestamps = torch.tensor([0.0, 1.5, 3.0, 4.5], dtype=torch.float64)
    encoded = processor.encode(clip)
    video = encoded["input_ids"] == processor.tokenizer.video_token_id
    audio = encoded["input_ids"] == processor.tokenizer.audio_token_id
    first_audio = int(torch.nonzero(audio)[0])
    times = encoded["position_ids"][0]
    start = times[video][0]
    assert (times[video] - start).unique().tolist() == [0, 75]
    second_grid = torch.nonzero(video & (times == start + 75)).flatten()
    # 50 sound tokens of the first 2 s come between the two grids.
    assert int(second_grid[0]) == first_audio + 50
    assert encoded["video_second_per_grid"] == pytest.approx(3.0)


@pytest.mark.parametrize("fps", [23.976, 25, 29.97, 60])
def test_flash_and_click_fall_into_the_same_chunk(processor, tmp_path, fps):
    """The tokens of the white frame and of the click have the same time and the same chunk."""
    path = make_clip(tmp_path / "flash.mp4", seconds=5, fps=fps, size=(56, 56), flash_at=3.0, click_at=3.0)
    processor.fps, before = 4.0, processor.fps
    try:
        clip = processor.load(path)
    finally:
        processor.fps = before
    flash = int(clip.frames.float().mean((1, 2, 3)).argmax())
    click = int(clip.audio.abs().argmax())
    assert abs(float(clip.timestamps[flash]) - click / 16000) <= 0.25 + 1 / fps
    encoded = processor.encode(clip)
    times = encoded["position_ids"][0]
    video = torch.nonzero(encoded["input_ids"] == processor.tokenizer.video_token_id).flatten()
    audio = torch.nonzero(encoded["input_ids"] == processor.tokenizer.audio_token_id).flatten()
    per_grid = len(video) // int(encoded["video_grid_thw"][0])
    flash_token, click_token = video[flash // 2 * per_grid], audio[click // 640]
    start = times[video[0]]
    assert abs(int(times[flash_token] - times[click_token])) <= 25 * 0.5 + 1
    assert (times[flash_token] - start) // 50 == (times[click_token] - start) // 50 == 1


def test_several_questions_share_the_clip(processor):
    clip = random_clip()
    one = processor.encode(clip, ["overall"])
    three = processor.encode(clip, ["overall", "video", "audio"])
    shared = int((three["question_ids"] == 0).sum())
    assert torch.equal(three["input_ids"][: len(one["input_ids"])], one["input_ids"])
    assert three["answer_positions"][0] == len(one["input_ids"]) - 1
    for index in (1, 2, 3):
        own = three["question_ids"] == index
        # The positions of each question follow the clip, as if it were the only question.
        assert int(three["position_ids"][0][own][0]) == int(three["position_ids"][0][shared - 1]) + 1
        assert int(three["answer_positions"][index - 1]) == int(torch.nonzero(own).max())


def test_answers_are_the_only_labels(processor):
    encoded = processor.encode(
        random_clip(), [processor.question("overall", 1), processor.question("audio", 0)]
    )
    labelled = encoded["labels"][encoded["labels"] != -100].tolist()
    tokenizer = processor.tokenizer
    assert tokenizer.convert_ids_to_tokens(labelled) == ["Fake", "<|im_end|>", "Real", "<|im_end|>"]
    # The verdict is read at the token before the answer.
    for column, word in ((0, "Fake"), (2, "Real")):
        position = int(encoded["answer_positions"][column])
        assert tokenizer.convert_ids_to_tokens([int(encoded["labels"][position + 1])]) == [word]
    assert int(encoded["answer_positions"][1]) == -1


def test_own_questions_and_answers(processor):
    encoded = processor.encode(random_clip(), [Question(" who speaks?", "Real Fake")])
    assert encoded["answer_positions"].tolist() == [-1, -1, -1]
    assert processor.tokenizer.decode(encoded["labels"][encoded["labels"] != -100]) == "Real Fake<|im_end|>"


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side(processor, side):
    batch = processor([random_clip(), random_clip(frames=8, seconds=4.0)], padding_side=side)
    pads = (batch["attention_mask"][0] == 0).nonzero().flatten().tolist()
    count = len(pads)
    assert count > 0
    expected = (
        range(count)
        if side == "left"
        else range(batch["input_ids"].shape[1] - count, batch["input_ids"].shape[1])
    )
    assert pads == list(expected)


def test_wrong_use_is_explained(processor, tmp_path):
    with pytest.raises(ValueError, match="padding_side must be"):
        processor([random_clip()], padding_side="middle")
    with pytest.raises(ValueError, match="at least one question"):
        processor.encode(random_clip(), [])
    with pytest.raises(ValueError, match="neither sound nor picture"):
        processor.encode(random_clip(video=False, audio=False))
    with pytest.raises(MediaError):
        processor([str(tmp_path / "missing.mp4")])
    long = make_clip(tmp_path / "long.mp4", seconds=3, fps=5, size=(16, 16))
    processor.max_seconds, before = 2.0, processor.max_seconds
    try:
        with pytest.raises(ValueError, match="longer than one pass"):
            processor.load(long)
    finally:
        processor.max_seconds = before


def test_a_breath_of_sound_is_left_out_with_a_warning(processor):
    clip = random_clip(seconds=0.01)
    encoded = processor.encode(clip)
    assert encoded["input_features"] is None
    assert "too short" in clip.warnings[0]


def test_saves_and_loads_all_of_itself(processor, tmp_path):
    changed = AVLMMProcessor(
        processor.feature_extractor,
        processor.tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
        prompts={"overall": " real or fake?"},
        fps=5.0,
        max_pixels=56 * 56,
        faces="largest",
        face_margin=2.0,
        min_face_size=10,
    )
    changed.save_pretrained(tmp_path)
    loaded = AVLMMProcessor.from_pretrained(tmp_path)
    assert loaded.prompts == changed.prompts
    assert (loaded.fps, loaded.max_pixels, loaded.max_frames) == (5.0, 56 * 56, 64)
    assert (loaded.faces, loaded.face_margin, loaded.min_face_size) == ("largest", 2.0, 10)
    clip = random_clip()
    for name, value in changed([clip]).items():
        np.testing.assert_array_equal(value, loaded([clip])[name], err_msg=name)


def test_a_picture_that_cannot_be_resized_is_an_error_of_its_clip(processor):
    clip = random_clip(size=(16, 4000))
    with pytest.raises(
        UnreadableMediaError, match=r"its picture of 4000x16 pixels cannot be resized \(absolute aspect"
    ):
        processor.encode(clip)
