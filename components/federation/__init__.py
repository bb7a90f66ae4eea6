"""Federated distillation: sites that share no inputs share what their students answer to public ones.

``agreement`` is what the sites agreed on, ``exchange`` the signed file of one site's answers, ``mixture`` the pure
arithmetic that makes one answer of many, and ``rounds`` makes the recorded mixture of a round that a teacher
(:mod:`components.teachers.federation`) answers from.

Sources: D. Li & J. Wang, "FedMD: Heterogenous federated learning via model distillation" (arXiv 1910.03581); T. Lin et
al., "Ensemble distillation for robust model fusion in federated learning" (FedDF, arXiv 2006.07242).
"""
