from chainrule.inspection import inspect
from chainrule.simulation import simulate
from chainrule.spec import NetworkSpec
from chainrule.networks import build_network, make_loss
