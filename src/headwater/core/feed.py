"""How a method is fed: where its batches come from, as far as the method itself decides."""

import enum


class Feed(enum.Enum):
    """What a method's batches are drawn from; `runs.feeds` maps it to a source.

    The value says it in words, to go on with "it learns from …".
    """

    STORED = "what was stored before"
    """Rows, episodes, texts or comparisons of a log."""
    ACTING = "what it does itself"
    """The method acts, and learns from what happens."""
    ROLLOUT = "what it has just done itself, once"
    """The method acts for a while, learns from those steps in their order, and drops them."""
    BOTH = "what was stored before and what it does itself, side by side"
    STREAM = "each step once, in the order in which it happens"
    """Single steps: what the method does itself, or what is done while it predicts."""
    PULLS = "rounds of a bandit, in the order in which they happen"
    """The method gives a distribution over arms; one is pulled, or was."""
    QUERIES = "evaluations of a black box, at points that it chooses"
    """The method proposes a point; somebody evaluates it."""
    TASKS = "tasks, in which agents learn by what it has learned so far"
    """The method is given whole tasks, and says how agents are to learn in them."""
    SAMPLED = "what it writes itself, and rewards of that"
    """The method writes responses, and learns from their rewards."""
    RESETS = "rewards of how it goes on from stored beginnings"
    """The method continues stored responses from some place within them."""
    REFERENCE = "what the model wrote as it was before training"
    """The model that training began with writes; nobody rewards it."""
    JUDGED = "what it does itself, in pairs that a judge compares"
    """The method makes two of everything, and a judge says which is better."""
    ADVANTAGES = "stored responses and how much better they are than the model's own"
