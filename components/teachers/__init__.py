"""Teachers: over HTTP (Open Inference Protocol, OpenAI chat completions), local transformers, and people.

``oip`` and ``openai_chat`` share ``http`` (time-outs, retries, limits, breaker) and ``answers`` (what counts as a
distribution); ``logprobs`` turns token probabilities into class probabilities.
"""
