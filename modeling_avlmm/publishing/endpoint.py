"""Write what an Inference Endpoint needs into a detector's folder."""

import shutil
from pathlib import Path

from transformers import PreTrainedModel, ProcessorMixin

from .requirements import requirements_text

HANDLER, REQUIREMENTS = "handler.py", "requirements.txt"


def write_endpoint(folder: Path, model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Write `handler.py` and `requirements.txt` into the folder of a published detector."""
    shutil.copyfile(Path(__file__).with_name("endpoint_handler.py"), folder / HANDLER)
    text = requirements_text(model.config.model_type, processor)
    (folder / REQUIREMENTS).write_text(text, encoding="utf-8")
