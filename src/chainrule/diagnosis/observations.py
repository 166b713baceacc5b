"""The table of what is worth a note: the metric, its bound, and what measurement says about it."""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.diagnosis.input_rules import LARGE
from chainrule.diagnosis.observation import Observation
from chainrule.diagnosis.optimizer_rules import SHORTER
from chainrule.diagnosis.rules import RULES
from chainrule.diagnosis.time_rules import LONG
from chainrule.flow.records import NEAR_ONE_HOT, NEAR_UNIFORM
from chainrule.flow.slips import FAST, HEAVY, SMOOTH

_OBSERVATIONS = (
    Observation(
        name="stopped_non_finite",
        metric="infinite or undefined numbers that reach no parameter",
        threshold=0.0,
        beyond=">",
        meaning="They stop before they reach the loss or the gradient of a parameter, for example "
        "at a unit that is off, so training goes on as if they were not there. A later step may "
        "let them through.",
        source="IEEE 754 arithmetic; measured: such models train",
    ),
    Observation(
        name="one_hot_attention",
        metric="relative entropy of attention",
        threshold=NEAR_ONE_HOT,
        beyond="<",
        meaning="It is often said that such attention cannot train, because no gradient passes "
        "through it. Tests on tiny GPT-2 models with larger queries and keys show otherwise. "
        "With Adam they learned at every level, but at some levels more slowly. With plain SGD "
        "they learned at a relative entropy of 0.01, hardly between 0.003 and nearly 0, and again "
        "where attention was exactly one-hot. If your model does not train, try smaller query and "
        "key weights, or normalized queries and keys.",
        source="measured: docs/decisions.md, “Attention that is one-hot trains”",
    ),
    Observation(
        name="uniform_attention",
        metric="relative entropy of attention",
        threshold=NEAR_UNIFORM,
        beyond=">",
        meaning="GPT-2, Llama, BERT and ViT start like this: small random queries and keys give "
        "every position about the same score, so each position gets the average of all. This is no "
        "fault. On tiny GPT-2 models with Adam, this start was as good as sharper attention. With "
        "plain SGD, models with queries and keys five times as large learned to look something up "
        "sooner.",
        source="measured: docs/decisions.md, “Attention that is one-hot trains”",
    ),
    Observation(
        name="large_branch",
        metric="size of a branch ÷ its residual stream",
        threshold=2.0,
        beyond=">",
        meaning="Most of such a sum comes from the branch, and the smaller part from the path "
        "around the block. After a few blocks little of the input is left. Models like this were "
        "seen to train if a normalization scales the sum down again. Without one, each block "
        "multiplies the residual stream by about that factor.",
        source="Zhang et al. 2019, Fixup (arXiv 1901.09321); De & Smith 2020 (arXiv 2002.10444)",
    ),
    Observation(
        name="tiny_branch",
        metric="median size of the branches ÷ their residual stream",
        threshold=0.01,
        beyond="<",
        meaning="Each block changes its input only a little, so at the start the network behaves "
        "like one with few layers. This is no fault: branches that start at exactly zero train, "
        "too.",
        source="De & Smith 2020 (arXiv 2002.10444); Zhang et al. 2019, Fixup (arXiv 1901.09321)",
    ),
    Observation(
        name="growing_pre_norm",
        metric="size of a normalized residual stream's last sum ÷ its start",
        threshold=1.5,
        beyond=">",
        meaning="With the normalization inside the branches, every branch adds about the same "
        "amount, but the residual stream grows. So later blocks change it by a smaller part. The "
        "gradient has a path to the first block without any normalization.",
        source="Xiong et al. 2020 (arXiv 2002.04745); Sun et al. 2025 (arXiv 2502.05795)",
    ),
    Observation(
        name="fading_post_norm",
        metric="gradient of a residual stream's first sum ÷ its last",
        threshold=0.5,
        beyond="<",
        meaning="A normalization after every sum divides the gradient by the size of that sum, so "
        "the gradient gets smaller with depth. The usual remedies are a learning rate that starts "
        "small (warm-up), or normalization before each branch (pre-norm).",
        source="Xiong et al. 2020 (arXiv 2002.04745)",
    ),
    Observation(
        name="deep_post_norm",
        metric="sums of a post-norm residual stream",
        threshold=22,  # 12 layers have 24; the first is unseen if the input needs no gradient
        beyond=">",
        meaning="At the start each gradient has a usable size, and still such a stack may hardly "
        "begin to learn: every sum passes on the changes of all branches before it. Measured on "
        "nn.TransformerEncoder that has to read the token before, 150 steps of Adam at 0.001 and "
        "0.003: with 12 sums it learned all, with 24 and 48 next to nothing, also with 60 steps of "
        "warm-up; with pre-norm (norm_first=True) and 24 sums it learned nearly all. A narrow one "
        "of 28 sums with large embeddings learned it, too. BERT trains with 24 and 48, with a "
        "small rate, thousands of steps of warm-up and a long training. "
        "chainrule.try_training(model, compute_loss) tells.",
        source="Liu et al. 2020 (arXiv 2004.08249) and Xiong et al. 2020 (arXiv 2002.04745); bound "
        "measured",
    ),
    Observation(
        name="starved_branch",
        metric="spread of a normalization's output before its scale",
        threshold=RULES["starved_normalization"].threshold,
        beyond="<",
        meaning="The values that reach this normalization are so small that its constant ε is "
        "larger than their variance. This is no fault here: it lies on a residual branch, which "
        "grows with its weights while the path around it carries signal and gradient, or a later "
        "normalization gives the values their size back.",
        source="Ba et al. 2016 (arXiv 1607.06450), section 3; De & Smith 2020 (arXiv 2002.10444); "
        "measured: docs/architectures.md",
    ),
    Observation(
        name="untouched_statistics",
        metric="normalizations in eval mode whose running statistics have counted no batch",
        threshold=0.0,
        beyond=">",
        meaning="In eval mode such a normalization divides by what it has counted in training, and "
        "here that is nothing. If the model shall be trained, call model.train() first, and "
        "measure it like that: it then runs as another model. An identity is meant only where a "
        "frozen layer shall do nothing.",
        source="PyTorch documentation of nn.BatchNorm2d and nn.Module.train",
    ),
    Observation(
        name="unused_weights",
        metric="number of weights that the loss does not depend on",
        threshold=RULES["unreached"].threshold,
        beyond=">",
        meaning="Everything else receives a gradient. These weights stay as they are, which is "
        "right for a part that this loss does not use: another head, a pooler, an expert that no "
        "input chose. If they are meant to learn, look for detach(), no_grad(), or a module that "
        "forward() leaves out.",
        source="reverse-mode differentiation: no path in the graph, no derivative",
    ),
    Observation(
        name="idle_examples",
        metric="share of examples that send no gradient back",
        threshold=0.25,
        beyond=">",
        meaning="The loss is flat for these examples, so this batch teaches nothing about them. "
        "That is meant where a margin is kept, a ratio is clipped or padding is masked. It is a "
        "fault where a clamp or an empty target does it.",
        source="definition: an example with zero gradient at the output changes no weight",
    ),
    Observation(
        name="large_start",
        metric="loss ÷ loss of guessing",
        threshold=8.0,
        beyond=">",
        meaning="The first steps only undo this. Most such networks train all the same, a little "
        "later. A smaller output layer, or targets of mean 0 and standard deviation 1, spare it.",
        source="measured: docs/truth.md",
    ),
    Observation(
        name="large_inputs",
        metric="root mean square of the input",
        threshold=LARGE,
        beyond=">",
        meaning="Nothing comes of it at the start. But the first layer's gradient grows with the "
        "input, so plain SGD needs a small learning rate, and a saturating activation behind it "
        "only switches. Of 24 such networks, Adam trained all, and SGD all but one. Inputs of "
        "mean 0 and standard deviation 1 spare the search.",
        source="LeCun et al. 1998, Efficient BackProp, section 4.3; measured: bytes, and inputs of "
        "standard deviation 100 and 1,000",
    ),
    Observation(
        name="swamped_term",
        metric="gradient of one term ÷ gradient of another, over the weights that both reach",
        threshold=5.0,
        beyond=">",
        meaning="The larger one decides where these weights go. In variational autoencoders whose "
        "KL term was 5 times the reconstruction or more, the reconstruction stayed at guessing in "
        "9 of 9 cases, with SGD and with Adam (posterior collapse). With two tasks and a factor "
        "of 50 or more, SGD left the smaller one at guessing in 6 of 6 cases, Adam in 3. A penalty "
        "that can be satisfied, such as orthogonal weights, did no harm at 69. To balance them, "
        "multiply one term by a factor, or let the large one in step by step.",
        source="measured: docs/decisions.md; Bowman et al. 2016 (arXiv 1511.06349), section 3.1",
    ),
    Observation(
        name="idle_term",
        metric="value of a term that reaches no parameter",
        threshold=0.0,
        beyond=">",
        meaning="Training does nothing about such a term. That is right for one that is switched "
        "off for now, or that is only to be seen in the sum. If it shall be learned, the gradient "
        "is lost on the way: look for detach(), no_grad(), argmax() or a number that was taken out "
        "with item(). A value near 0 says nothing: the gradient of a policy's term is not small "
        "where its mean is.",
        source="reverse-mode differentiation: no path in the graph, no derivative",
    ),
    Observation(
        name="separate_terms",
        metric="groups of terms that share no parameter",
        threshold=1.0,
        beyond=">",
        meaning="Each group trains a part of the model of its own. That is right for parts that "
        "learn apart: a generator and its critic, an actor and its critic, a part that is trained "
        "on what another gives. If one part is to be trained through the other, as the encoder of "
        "an autoencoder through its decoder, the gradient is lost between them: look for sample() "
        "in place of rsample(), detach(), no_grad() or argmax().",
        source="reverse-mode differentiation: no path in the graph, no derivative; PyTorch "
        "documentation of torch.distributions (rsample)",
    ),
    Observation(
        name="faint_term",
        metric="gradient of a term ÷ the largest of another, at the parameter where it is most",
        threshold=1e-4,
        beyond="<",
        meaning="As long as that is so, training does next to nothing about it, with Adam as with "
        "SGD. Of 13 models whose boundary, data or reward had no larger share, 600 steps of Adam "
        "taught none of it. A penalty, or a weight that is to grow, may be as small on purpose. If "
        "the term is what the model shall meet, give it a larger weight.",
        source="measured: docs/decisions.md, “Terms that are not trained”",
    ),
    Observation(
        name="unnamed_terms",
        metric="what is added to a known loss ÷ what guessing costs that loss",
        threshold=1.0,
        beyond=">",
        meaning="Whether it outweighs the error can be measured: let compute_loss return the terms "
        'by name, {"error": …, "kl": …}. In variational autoencoders, a KL term that is summed '
        "where the error is averaged, or has a large factor, ends in outputs that know nothing of "
        "the input.",
        source="Bowman et al. 2016 (arXiv 1511.06349), section 3.1; measured: docs/truth.md",
    ),
    Observation(
        name="tiny_gradients",
        metric="size of the gradients' entries",
        threshold=1e-9,
        beyond="<",
        meaning="So Adam's steps are more than ten times shorter than its learning rate says, and "
        "plain SGD hardly moves. Where training is done, that is as it should be. At the start, "
        "look at the loss: a sigmoid or a logarithm at its end, a critic that is nearly always "
        "right, a small factor.",
        source="Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1; Goodfellow et al. 2014 "
        "(arXiv 1406.2661), section 3",
    ),
    Observation(
        name="low_rate",
        metric="learning rate at which plain SGD moves the median parameter by 1 %",
        threshold=1e-4,
        beyond="<",
        meaning="Usual rates, 0.001 to 1, are far too large for plain SGD here, because the loss "
        "or its gradient is. Of 8 such models without another fault, SGD trained 2, and Adam 7. "
        "Look at the size of the loss: sums in place of means, targets in large units, variances "
        "that start near zero.",
        source="measured: docs/truth.md",
    ),
    Observation(
        name="high_rate",
        metric="learning rate at which plain SGD moves the median parameter by 1 %",
        threshold=100.0,
        beyond=">",
        meaning="Usual rates, 0.001 to 1, hardly move anything with plain SGD here, because the "
        "loss or its gradient is so small. Of 11 such models without another fault, SGD trained "
        "none and Adam 8. Look at what divides the loss, and at functions that are nearly flat.",
        source="measured: docs/truth.md",
    ),
    Observation(
        name="small_steps",
        metric="size of the first step ÷ size of the weights",
        threshold=1e-4,
        beyond="<",
        meaning="A thousand such steps in one direction change the weights by less than a tenth of "
        "their size. That suits fine-tuning. From a random start, usual steps are near a "
        "thousandth.",
        source="follows from the triangle inequality; Karpathy, CS231n 2015",
    ),
    Observation(
        name="rate_of_zero",
        metric="largest learning rate of the optimizer now",
        threshold=0.0,
        beyond="<",
        meaning="No weight moves at a rate of 0. At the end of a run that is meant. At the start "
        "of a warm-up it lasts until the schedule takes its first step: let it step after every "
        "batch, not after every epoch.",
        source="follows from what an optimizer does; PyTorch documentation of "
        "torch.optim.lr_scheduler",
    ),
    Observation(
        name="still_group",
        metric="trained parameters with a learning rate of 0",
        threshold=0.0,
        beyond=">",
        meaning="They stay as they are. This is right where they shall not learn; "
        "requires_grad_(False) then saves the time for their gradients.",
        source="follows from what an optimizer does",
    ),
    Observation(
        name="rounded_steps",
        metric="share of the entries in half precision that the first step leaves as they are",
        threshold=0.5,
        beyond=">",
        meaning="These entries cannot learn, however long it trains, unless gradients grow; the "
        "others can. Keep the weights in float32 and compute under torch.autocast, or take an "
        "optimizer that keeps a copy in float32. Of 27 trainings like this, 25 learned through "
        "what still moved. The 12 with Adam had 1.1 to 3.6 times the loss of float32, the 15 with "
        "SGD 1 to 2.7 times.",
        source="IEEE 754: a sum is rounded to the nearest number; Zamirai et al. 2020, Revisiting "
        "BFloat16 Training (arXiv 2010.06192); measured",
    ),
    Observation(
        name="foreign_rate",
        metric="learning rate ÷ the one that the optimizer takes by default, or the reverse",
        threshold=SHORTER,
        beyond=">",
        meaning="Each optimizer has usual rates of its own: 1e-4 to 1e-2 for Adam, 0.001 to 1 for "
        "SGD, about 1 for Adadelta. A rate that was taken over from another one hardly moves the "
        "weights, or moves them far too much. Of six models with Adadelta and Adafactor, 200 steps "
        "took 96 to 100 % of the loss away at their own rates, and 2 % at most at a thousandth.",
        source="Zeiler 2012, Adadelta (arXiv 1212.5701); PyTorch documentation of torch.optim; the "
        "bound is the range of the usual rates of Adam",
    ),
    Observation(
        name="some_decay",
        metric="pull of the weight decay ÷ pull of the loss",
        threshold=1.0,
        beyond=">",
        meaning="More of a step makes the weights smaller than makes the loss smaller. They shrink "
        "until both are equal. Usual values of weight decay are 1e-4 with SGD and 0.01 to 0.1 with "
        "AdamW.",
        source="Loshchilov & Hutter 2019 (arXiv 1711.05101), section 2",
    ),
    Observation(
        name="short_sequences",
        metric="share of sequences that are shorter than their labels need",
        threshold=0.0,
        beyond=">",
        meaning="Their loss is infinite, or left out with zero_infinity=True: nothing is learned "
        "from them. Longer inputs (less pooling, smaller strides) or shorter targets end that.",
        source="Graves et al. 2006, Connectionist Temporal Classification, section 3.1",
    ),
    Observation(
        name="all_pairs",
        metric="targets that every answer is compared with",
        threshold=1.0,
        beyond=">",
        meaning="This is right for a distance between two sets, or for ranks. If each answer has a "
        "target of its own, give both the same shape; if these are weights of examples, they have "
        "no effect like this.",
        source="PyTorch documentation, Broadcasting semantics",
    ),
    Observation(
        name="probabilities",
        metric="outputs that went through an activation that the loss does not expect",
        threshold=0,
        beyond=">",
        meaning="The loss cannot become small, even for perfect answers, and the gradient is a few "
        "times smaller. It trains all the same, but later. Give the loss what it expects.",
        source="PyTorch documentation of these losses; measured: docs/truth.md",
    ),
    Observation(
        name="log_softmax_twice",
        metric="outputs that are logarithms of probabilities already",
        threshold=0,
        beyond=">",
        meaning="cross_entropy takes the log_softmax itself. A second one changes nothing, neither "
        "the loss nor the gradient: it only takes time. Use nll_loss, or leave the first one out.",
        source="log_softmax(log_softmax(x)) = log_softmax(x)",
    ),
    Observation(
        name="detached_constant",
        metric="part of the loss that was detached",
        threshold=0,
        beyond=">",
        meaning="It depends on the model, but was made with detach() or while gradients were off, "
        "so it reaches no parameter. That is meant for a constant that makes the loss easier to "
        "read, such as the entropy of a teacher's answers. If it is a term that shall be learned, "
        "such as that of a policy, training does nothing about it, and a value near 0 does not say "
        "that it is small: let the gradient through.",
        source="torch.Tensor.detach, torch.no_grad",
    ),
    Observation(
        name="constant_columns",
        metric="share of input columns with one value in all examples",
        threshold=0.1,
        beyond=">",
        meaning="A column that never changes tells nothing about an example; it acts like one more "
        "bias. In a larger batch it may change.",
        source="measured: the input's columns",
    ),
    Observation(
        name="constant_input",
        metric="examples of an input that has a single value",
        threshold=0.0,
        beyond=">",
        meaning="It tells nothing about an example. That is meant for a state to start from, for a "
        "fixed time, or for nodes that only their edges tell apart. If not, look at what makes it: "
        "a cast to integers, a division of integers, a mask, a scaling that was done twice.",
        source="measured: the input's ends",
    ),
    Observation(
        name="repeated_examples",
        metric="share of input examples that repeat an earlier one",
        threshold=0.49,  # where every example stands there twice it is one half
        beyond=">",
        meaning="Repeated examples teach nothing new, unless something random in the model "
        "(dropout, noise, samples) makes them differ. If they should differ, look at how the batch "
        "is drawn: a random state set too often, an index that does not move, a copied view. A "
        "contrastive loss then compares every example with itself.",
        source="measured: the input's examples",
    ),
    Observation(
        name="fading_time",
        metric="share of time steps that hardly any gradient reaches",
        threshold=0.0,
        beyond=">",
        meaning="What the loss reads at the end, it can hardly learn from these steps. If the task "
        "needs them, start the forget gates open (a bias of 3 to 5), or read the outputs of all "
        "steps. Many tasks do not: there this is no fault.",
        source="Hochreiter 1991; Jozefowicz et al. 2015",
    ),
    Observation(
        name="behind_lookup",
        metric="parameters that a term does not reach, behind indices that the model computed",
        threshold=0.0,
        beyond=">",
        meaning="An index (argmin, argmax) has no gradient. Where this term shall teach what comes "
        "before it as well, let its gradient past: z + (code − z).detach(). Where each part learns "
        "from a term of its own on purpose, it is no fault.",
        source="van den Oord et al. 2017 (arXiv 1711.00937), section 3.2; Bengio et al. 2013 "
        "(arXiv 1308.3432)",
    ),
    Observation(
        name="unheard_positions",
        metric="share of positions that hardly any gradient reaches",
        threshold=0.0,
        beyond=">",
        meaning="Whatever stands there, the loss cannot learn from it. Look at a padding mask the "
        "wrong way round, a scan that forgets, a receptive field that ends too soon. Padding in "
        "front that all examples share receives nothing rightfully, and so does what a model "
        "leaves out on purpose, such as all but the last positions.",
        source="measured: the gradient at each position",
    ),
    Observation(
        name="cut_time",
        metric="share of time steps that no path leads to from the loss",
        threshold=0.0,
        beyond=">",
        meaning="Something cuts the path between two steps: detach(), .data, torch.no_grad() or a "
        "new tensor. Truncated backpropagation through time does so on purpose. If the task needs "
        "these steps, let the gradient through, or cut less often.",
        source="reverse-mode differentiation: no path in the graph, no derivative; Williams & Peng "
        "1990 on truncated backpropagation through time",
    ),
    Observation(
        name="untold_steps",
        metric="time steps, none of which tells anything of the targets",
        threshold=LONG,
        beyond=">",
        meaning="What decides the answer may lie in several steps together, far back, or nowhere "
        "in this batch: a measurement cannot say which. Of 9 such networks with gates, Adam "
        "trained 7, and plain SGD 1; of 3 without, but with a gradient that reaches all steps "
        "alike (recurrent weights that start as an identity or orthogonal), Adam 3, and SGD none. "
        "chainrule.try_training(model, compute_loss) tells.",
        source="measured on networks of 20 and 48 units; Gretton et al. 2007 on the test",
    ),
    Observation(
        name="partly_out_of_reach",
        metric="loss of the best outputs that are possible ÷ loss of guessing",
        threshold=0.05,
        beyond=">",
        meaning="Targets outside of the range of the last activation are never met, and near its "
        "ends it is flat. Leave it out, or scale the targets into its range.",
        source="range of the function",
    ),
    Observation(
        name="one_sided_logits",
        metric="share of right answers that logits of one sign cannot reach, or not by gradient",
        threshold=0.05,
        beyond=">",
        meaning="These losses expect logits of any sign. A class whose logit is at the end of such "
        "a function for all examples gets no gradient any more, and is never answered; of yes and "
        "no, one costs as much as guessing for good. Of 23 classifiers with a rectifier at the "
        "end, plain SGD left 10 and Adam 8 with a fifth of the answers wrong or more, whatever the "
        "rate; without it, none. Leave the last activation out.",
        source="derivative of a rectifier; measured: docs/decisions.md, “Logits of one sign”",
    ),
    Observation(
        name="same_targets",
        metric="batches with the same target in all examples",
        threshold=0.0,
        beyond=">",
        meaning="An answer that is always the same is perfect here, and that is what such a batch "
        "teaches. Where targets are labels, look at how batches are drawn: sorted by class and not "
        "shuffled, a column that was mixed up. A critic that gets real or generated samples "
        "alone has such targets on purpose.",
        source="definition: the best constant answer costs nothing",
    ),
    Observation(
        name="same_views",
        metric="outputs of a module that the loss reads together, and that are the same",
        threshold=0.0,
        beyond=">",
        meaning="The module was given the same examples twice, perhaps in another order, and "
        "nothing random in it makes a difference. Where the loss compares two views of each "
        "example, what shall be alike is alike from the start: then it only drives examples apart, "
        "and learns nothing of what two views have in common. Look at how the second view is made. "
        "Where the loss needs one output in two places, it is no fault, but one call would do.",
        source="Chen et al. 2020, SimCLR (arXiv 2002.05709), section 3: without augmentation, the "
        "task is trivial",
    ),
    Observation(
        name="rare_targets",
        metric="entropy of the targets (1 % of ones: 0.056)",
        threshold=0.2,
        beyond="<",
        meaning="An answer that is always the same has nearly the lowest loss, and a high accuracy "
        "says little. What is learned first is that constant. If most targets are padding, leave "
        "them out (ignore_index); if one class is rare, give it more weight or draw it more often, "
        "and judge by its own recall.",
        source="Shannon entropy; Japkowicz & Stephen 2002, The class imbalance problem",
    ),
    Observation(
        name="one_number",
        metric="classes whose logits are made from a single number",
        threshold=2.0,
        beyond=">",
        meaning="Logits that are straight lines over one number let each class win in one interval "
        "of it at most, so all that is known of an example has to be put in that order. A pooling "
        "over features in place of positions does this. Of five classes, SGD and Adam left 63 % of "
        "what guessing gets wrong at the best of six rates, and 7 % with all features. Ranks and "
        "amounts can be learned like this.",
        source="the largest of several straight lines; measured: docs/decisions.md, “All classes "
        "from one number”",
    ),
    Observation(
        name="slow_start",
        metric="fall of the loss if all parameters moved by 1 %, relative to the loss",
        threshold=3e-4,
        beyond="<",
        meaning="The loss hardly feels the weights: it lies far above what they change, as with "
        "targets of the size 1,000, a temperature far too high, or outputs scaled down. Of 16 such "
        "models that had no other fault, plain SGD trained 3, and Adam 10. Scale the targets to "
        "standard deviation 1, or look at what divides the outputs.",
        source="measured: docs/truth.md",
    ),
    Observation(
        name="no_activations",
        metric="weight layers with only linear functions between them",
        threshold=1.0,
        beyond=">",
        meaning="Together they can do no more than one layer: a product of matrices is a matrix. "
        "What is not linear cannot be learned. Put an activation function between them, if they "
        "are not a factorization on purpose.",
        source="Goodfellow et al. 2016, Deep Learning, section 6.1",
    ),
    Observation(
        name="heavy_dropout",
        metric="share of values that dropout leaves out",
        threshold=HEAVY,
        beyond=">",
        meaning="What is left is scaled up, so the noise is far larger than the signal. In PyTorch "
        "p is the share that is left out, not the one that is kept.",
        source="PyTorch documentation of nn.Dropout; Srivastava et al. 2014, section 7.3",
    ),
    Observation(
        name="scrambled_sizes",
        metric="reshapes that put the sizes of a tensor into another order",
        threshold=0.0,
        beyond=">",
        meaning="A reshape reads entries one after the other, so here the steps, channels or "
        "examples that belong together are torn apart. To exchange dimensions, use transpose or "
        "permute. A few tricks do this on purpose.",
        source="PyTorch documentation, torch.reshape and torch.permute; measured",
    ),
    Observation(
        name="over_examples",
        metric="examples that a softmax or a normalization goes over",
        threshold=1.0,
        beyond=">",
        meaning="So the answer for one example depends on which others are in the batch. That is "
        "meant where examples are compared with each other. If not, give it another dim: the "
        "scores of one example stand in the later dimensions.",
        source="PyTorch documentation, dim of torch.softmax; measured: attention whose softmax "
        "went over the examples did not learn",
    ),
    Observation(
        name="not_logarithms",
        metric="largest of the numbers that a loss takes for logarithms of probabilities",
        threshold=0.0,
        beyond=">",
        meaning="Logarithms of probabilities are never above 0. With other numbers the loss has no "
        "lowest value, and training may only make them larger. Take log_softmax first, or "
        "cross_entropy in place of nll_loss.",
        source="PyTorch documentation of nll_loss, kl_div and ctc_loss; measured",
    ),
    Observation(
        name="overwritten_input",
        metric="share of the values that were given to the model and that it changed",
        threshold=0.0,
        beyond=">",
        meaning="A second pass over this tensor reads other values than the first. That is meant "
        "for a state that is carried on. For data that are kept, as a batch that is used again or "
        "a part of a larger tensor, each epoch changes them further: write x / 255 in place of "
        "x.div_(255), and no inplace=True in the first layer.",
        source="PyTorch documentation, functions with _ at their end; measured: digits divided in "
        "place by 255 in each pass ended at 33 % correct, and at 83 % otherwise",
    ),
    Observation(
        name="mixed_rows",
        metric="entries of the second dimension that a reshape puts together in other rows",
        threshold=1.0,
        beyond=">",
        meaning="A reshape reads entries one after the other. If the second dimension holds the "
        "examples, each answer is made of several of them: put the examples first, with transpose "
        "or permute, before the reshape. If it holds something else, all may be well.",
        source="PyTorch documentation of torch.reshape",
    ),
    Observation(
        name="smoothed_targets",
        metric="label smoothing",
        threshold=SMOOTH,
        beyond=">",
        meaning="It is the part that is spread evenly over all classes, not the part that the "
        "target keeps. The model can still learn which class is likeliest, but little pulls it "
        "there. Usual is 0.1.",
        source="Szegedy et al. 2016 (arXiv 1512.00567), section 7",
    ),
    Observation(
        name="frozen_constant",
        metric="examples for which a frozen module gives the same",
        threshold=0.0,
        beyond=">",
        meaning="It tells nothing about an example, and cannot learn to. That is right for a table "
        "that is read by position, or for a part that is switched off. If it shall tell examples "
        "apart, look at what filled its weights.",
        source="measured: the module's output",
    ),
    Observation(
        name="little_trained",
        metric="share of the numbers that are trained",
        threshold=0.01,
        beyond="<",
        meaning="What is frozen stays as it is, and no matrix is trained. That is right for a "
        "temperature, a prompt, or biases and normalizations of a large model that was trained "
        "before. If a new last layer or an adapter shall learn, freeze first and add it "
        "afterwards, or call requires_grad_(True) on it.",
        source="Ben Zaken et al. 2022, BitFit (arXiv 2106.10199); measured: docs/decisions.md, "
        "“Models of which next to nothing is trained”",
    ),
    Observation(
        name="fast_waves",
        metric="standard deviation of the angles of a sine or a cosine, in radians",
        threshold=FAST,
        beyond=">",
        meaning="Inputs that lie close together give unrelated values, so the network can learn "
        "them by heart and know nothing of what lies between. Sine networks expect inputs between "
        "−1 and 1 before their factor ω₀ (30). Where examples lie densely enough, as the samples "
        "of a sound, such frequencies are meant. Measured: of 10 sine networks on 512 points, "
        "those with up to 147 radians (on a line) or 15 (in a plane) knew what lies between; those "
        "with more, 584 and 32, did not.",
        source="Sitzmann et al. 2020 (arXiv 2006.09661), section 3.2; Tancik et al. 2020 (arXiv "
        "2006.10739); measured",
    ),
    Observation(
        name="copied_units",
        metric="share of a layer's units that are copies",
        threshold=0.1,
        beyond=">",
        meaning="Units with the same weights and gradients stay so, and the layer works like a "
        "smaller one, and trains like it. Where a network was widened by copying units, a little "
        "noise on the copies sets them free.",
        source="Chen et al. 2016, Net2Net (arXiv 1511.05641)",
    ),
    Observation(
        name="partly_saturated",
        metric="share of saturated activations",
        threshold=0.5,
        beyond=">",
        meaning="More than half of the activations are flat here, so little gradient passes "
        "through them. The layer can still learn, but more slowly. Smaller weights before it, "
        "smaller inputs or a normalization bring it back to where it is steep.",
        source="Glorot & Bengio 2010, section 3",
    ),
    Observation(
        name="near_overflow",
        metric="largest value ÷ largest number of float16",
        threshold=0.1,
        beyond=">",
        meaning="A few steps of training, or another batch, can take these values beyond the "
        "largest number of float16, 65,504: then they are infinite. bfloat16 has room for them; "
        "or compute this module in float32.",
        source="IEEE 754 binary16; Micikevicius et al. 2018 (arXiv 1710.03740)",
    ),
)

OBSERVATIONS: Mapping[str, Observation] = MappingProxyType(
    {each.name: each for each in _OBSERVATIONS}
)
"""Every observation by name, in the order in which notes are given."""
