"""Against a real vLLM server on this machine's processor: ``make test-vllm``.

``VLLM_PYTHON`` is the interpreter of a virtual environment with vLLM in it, ``VLLM_MODEL_DIR`` a
folder with ``tiny-gpt-oss`` (a GptOssForCausalLM that has learnt one harmony answer) and
``smollm2`` (SmolLM2-135M-Instruct). Without them these tests are skipped.
"""
