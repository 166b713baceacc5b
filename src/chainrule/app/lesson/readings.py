"""The lesson's reading list."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """Something worth reading.

    Attributes:
        authors: Who wrote it.
        year: When it appeared.
        title: What it is called.
        venue: Where it appeared; for arXiv, "arXiv " and the number.
        reason: Why to read it, in one line.
        address: Where to find it, if not on arXiv.
    """

    authors: str
    year: int
    title: str
    venue: str
    reason: str
    address: str | None = None

    @property
    def link(self) -> str | None:
        """The address, `None` where there is no lasting one."""
        if self.venue.startswith("arXiv "):
            return f"https://arxiv.org/abs/{self.venue.removeprefix('arXiv ')}"
        return self.address


READINGS: tuple[Reading, ...] = (
    Reading(
        "Hochreiter",
        1991,
        "Untersuchungen zu dynamischen neuronalen Netzen",
        "diploma thesis, TU München",
        "The first analysis of the problem (in German).",
    ),
    Reading(
        "Bengio, Simard & Frasconi",
        1994,
        "Learning long-term dependencies with gradient descent is difficult",
        "IEEE Transactions on Neural Networks",
        "Why remembering for long makes gradients vanish.",
    ),
    Reading(
        "LeCun, Bottou, Orr & Müller",
        1998,
        "Efficient BackProp",
        "Neural Networks: Tricks of the Trade",
        "The practical rules, and where the variance of one over fan-in comes from.",
    ),
    Reading(
        "Glorot & Bengio",
        2010,
        "Understanding the difficulty of training deep feedforward neural networks",
        "AISTATS",
        "Measures activations and gradients layer by layer; Xavier initialization.",
    ),
    Reading(
        "Pascanu, Mikolov & Bengio",
        2013,
        "On the difficulty of training recurrent neural networks",
        "arXiv 1211.5063",
        "Exploding gradients as cliffs, and clipping as the answer.",
    ),
    Reading(
        "Saxe, McClelland & Ganguli",
        2014,
        "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
        "arXiv 1312.6120",
        "What can be proved without activations; orthogonal initialization.",
    ),
    Reading(
        "He, Zhang, Ren & Sun",
        2015,
        "Delving deep into rectifiers: surpassing human-level performance on ImageNet "
        "classification",
        "arXiv 1502.01852",
        "He initialization, derived in a page.",
    ),
    Reading(
        "Ioffe & Szegedy",
        2015,
        "Batch normalization: accelerating deep network training by reducing internal covariate "
        "shift",
        "arXiv 1502.03167",
        "The normalization that changed what could be trained.",
    ),
    Reading(
        "Mishkin & Matas",
        2016,
        "All you need is a good init",
        "arXiv 1511.06422",
        "LSUV: measure each layer and rescale it, instead of deriving a formula.",
    ),
    Reading(
        "He, Zhang, Ren & Sun",
        2016,
        "Deep residual learning for image recognition",
        "arXiv 1512.03385",
        "Residual connections.",
    ),
    Reading(
        "Karpathy",
        2016,
        "Yes you should understand backprop",
        "Medium",
        "Short: three ways in which not knowing the chain rule hurts.",
        "https://karpathy.medium.com/yes-you-should-understand-backprop-e2f06eab496b",
    ),
    Reading(
        "Poole, Lahiri, Raghu, Sohl-Dickstein & Ganguli",
        2016,
        "Exponential expressivity in deep neural networks through transient chaos",
        "arXiv 1606.05340",
        "Order and chaos: how signals spread in random networks.",
    ),
    Reading(
        "Ba, Kiros & Hinton",
        2016,
        "Layer normalization",
        "arXiv 1607.06450",
        "Normalization that needs no batch.",
    ),
    Reading(
        "Schoenholz, Gilmer, Ganguli & Sohl-Dickstein",
        2017,
        "Deep information propagation",
        "arXiv 1611.01232",
        "Predicts how deep a signal and a gradient can reach.",
    ),
    Reading(
        "Balduzzi, Frean, Leary, Lewis, Ma & McWilliams",
        2017,
        "The shattered gradients problem: if resnets are the answer, then what is the question?",
        "arXiv 1702.08591",
        "Size is not all: deep plain gradients become noise.",
    ),
    Reading(
        "Klambauer, Unterthiner, Mayr & Hochreiter",
        2017,
        "Self-normalizing neural networks",
        "arXiv 1706.02515",
        "SELU, and the fixed point that its constants come from.",
    ),
    Reading(
        "Pennington, Schoenholz & Ganguli",
        2017,
        "Resurrecting the sigmoid in deep learning through dynamical isometry: theory and practice",
        "arXiv 1711.04735",
        "All singular values matter, not only their mean.",
    ),
    Reading(
        "Hanin",
        2018,
        "Which neural net architectures give rise to exploding and vanishing gradients?",
        "arXiv 1801.03744",
        "Why depth divided by width decides how far medians and means part.",
    ),
    Reading(
        "Zhang, Dauphin & Ma",
        2019,
        "Fixup initialization: residual learning without normalization",
        "arXiv 1901.09321",
        "How small branches must start if nothing normalizes them.",
    ),
    Reading(
        "Yang, Pennington, Rao, Sohl-Dickstein & Schoenholz",
        2019,
        "A mean field theory of batch normalization",
        "arXiv 1902.08129",
        "Proves that plain deep networks with batch normalization explode at the start.",
    ),
    Reading(
        "Zhang, He, Sra & Jadbabaie",
        2020,
        "Why gradient clipping accelerates training: a theoretical justification for adaptivity",
        "arXiv 1905.11881",
        "When clipping is more than a safety net.",
    ),
    Reading(
        "Xiong, Yang, He, Zheng, Zheng, Xing, Zhang, Lan, Wang & Liu",
        2020,
        "On layer normalization in the transformer architecture",
        "arXiv 2002.04745",
        "Where the normalization stands decides whether warm-up is needed.",
    ),
    Reading(
        "Bachlechner, Majumder, Mao, Cottrell & McAuley",
        2021,
        "ReZero is all you need: fast convergence at large depth",
        "arXiv 2003.04887",
        "Residual branches that start at zero.",
    ),
    Reading(
        "Yang, Hu, Babuschkin, Sidor, Liu, Farhi, Ryder, Pachocki, Chen & Gao",
        2022,
        "Tensor programs V: tuning large neural networks via zero-shot hyperparameter transfer",
        "arXiv 2203.03466",
        "µP: how scales and learning rates must change with width.",
    ),
)
"""Everything, by year."""
