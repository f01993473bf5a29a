"""Train a detector as a recipe says: AV-LMMDetect, SSAVD or AVPL.

    python train_sft.py --recipe recipes/demo.yaml
    python train_sft.py --recipe recipes/ssavd_fakeavceleb.yaml --data.data_dir /data/FakeAVCeleb_v1.2
    python train_sft.py --recipe recipes/fakeavceleb_7b.yaml --dry-run --memory-gib 80
    accelerate launch --config_file recipes/accelerate/ddp.yaml train_sft.py --recipe recipes/mavos_dd_7b.yaml

Any field of the recipe can be given as --any.field value. A run that was stopped resumes when it is started again.
`python -m modeling_avlmm train` is the same command.
"""

import sys

from modeling_avlmm.cli.train import main

if __name__ == "__main__":
    sys.exit(main(__doc__))
