"""Ask whether the mixture-of-experts theory of prompts holds.

Algebra predicts, simulation measures, and a Vision Transformer shows the same at work.

    model -> sample -> fit -> loss -> slope -> study -> claim -> figure

    models           what generates data: Gaussian gates, softmax gates, prompts in an attention head; truths
    estimators       (family, data, start, options) -> FitResult with a certificate; ``fit``
    losses           Voronoi losses, prediction risk, Hellinger distance
    slopes           exponents with intervals, verdicts, n to reach a risk
    intervals        intervals of 90 %, one method for each kind of quantity, and when a prediction holds
    designs          how likely a design is to decide: power, replicates needed
    identifiability  what decides a rate without noise: kappas, profiles, likelihood gaps
    theory           predicted exponents: rates derived by computer algebra, each with a certificate
    engine           how any study is run: cells, blocks, executors, stored rows, resume
    study            a grid of cells -> a tidy table, for gates, prompts and published simulations
    claims           statement, prediction and rule -> a verdict with its evidence
    figures          draw_*(ax, table)
    studies          ``study``: the rates of a truth in one call
    tables           the same tables as Markdown
    vision           the same theory inside a ViT: VPT and VAPT on timm models (extra ``vision``)
    commands         what ``moe-prompts NAME`` does: options, a call of the library, what is printed
"""

from __future__ import annotations

from moe_prompts.lazy import loaded

__version__ = "0.1.0"

#: Public name -> module; loaded on first use, so that the import is cheap and pulls nothing that is not
#: needed.
_PUBLIC = {
    "InputError": "errors",
    "GaussianGatedMoE": "models.gaussian_gated",
    "GaussianGatedFamily": "models.gaussian_gated",
    "Sample": "models.data",
    "StreamedSample": "models.data",
    "Truth": "models.gaussian_truths",
    "TRUTHS": "models.gaussian_truths",
    "truth": "models.gaussian_truths",
    "sample": "models.gaussian_truths",
    "streamed": "models.gaussian_truths",
    "SoftmaxGatedMoE": "models.softmax_gated",
    "SoftmaxGatedFamily": "models.softmax_gated",
    "SoftmaxTruth": "models.softmax_truths",
    "softmax_truth": "models.softmax_truths",
    "softmax_sample": "models.softmax_truths",
    "Head": "models.prompt_attention",
    "from_head": "models.prompt_attention",
    "token_wise": "models.prompt_attention",
    "MultiHead": "models.multi_head",
    "from_block": "models.multi_head",
    "PromptKind": "models.prompt_attention",
    "PromptFamily": "models.prompt_attention",
    "PromptAttention": "models.prompt_attention",
    "PromptTruth": "models.prompt_truths",
    "prompt_truth": "models.prompt_truths",
    "add_truth": "models.truths",
    "add_prompt_truth": "models.truths",
    "Activation": "models.activations",
    "add_activation": "models.activations",
    "prompt_data": "models.gaussian_truths",
    "RegressionData": "models.data",
    "fit": "estimators.fits",
    "StudyResult": "studies",
    "em": "estimators.gaussian.em",
    "EMOptions": "estimators.trust_region",
    "newton": "estimators.gaussian.newton",
    "NewtonOptions": "estimators.gaussian.newton",
    "best_of": "estimators.gaussian.search",
    "global_maximum": "estimators.gaussian.global_search",
    "GlobalOptions": "estimators.gaussian.global_search",
    "merge_path": "estimators.gaussian.merging",
    "choose_k": "estimators.gaussian.merging",
    "SearchOptions": "estimators.gaussian.search",
    "least_squares": "estimators.prompts.least_squares",
    "LeastSquaresOptions": "estimators.prompts.least_squares",
    "softmax_newton": "estimators.softmax.likelihood",
    "softmax_em": "estimators.softmax.likelihood",
    "SoftmaxOptions": "estimators.softmax.likelihood",
    "near_truth": "estimators.prompts.least_squares",
    "vector_near_truth": "estimators.prompts.least_squares",
    "random_start": "estimators.prompts.least_squares",
    "Box": "estimators.prompts.objective",
    "quadrature": "estimators.prompts.quadrature",
    "FitResult": "estimators.result",
    "FitStatus": "estimators.result",
    "Certificate": "estimators.result",
    "voronoi_loss": "losses.gaussian_voronoi",
    "voronoi_errors": "losses.gaussian_voronoi",
    "softmax_loss": "losses.softmax_voronoi",
    "softmax_errors": "losses.softmax_voronoi",
    "prompt_loss": "losses.prompt_voronoi",
    "prompt_errors": "losses.prompt_voronoi",
    "Evaluation": "losses.prediction",
    "slope": "slopes",
    "Verdict": "intervals",
    "power": "designs",
    "replicates_needed": "designs",
    "kappas": "identifiability",
    "profile": "identifiability",
    "likelihood_gaps": "identifiability",
    "predict": "theory",
    "rate_table": "theory.table",
    "dependences": "theory.dependences",
    "verify": "theory.certificates.verify",
    "verify_table": "theory.certificates.verify",
    "Study": "engine.grid",
    "run_study": "engine.runner",
}

#: ``study`` is the part of the package, and called as a function it is ``studies.study``.
_MODULES = {"study": "study", "starts": "estimators.gaussian.starts", "vision": "vision"}

__all__ = ["__version__", *_PUBLIC, *_MODULES]

__getattr__, __dir__ = loaded(__name__, _PUBLIC, _MODULES)
