"""Models of torchvision and timm, untrained, on small images; nothing where these are missing."""

from collections.abc import Callable, Iterator
from functools import partial

from torch import nn

from architecture_zoo.tasks import CLASSES, Case, classify, draw_images

TORCHVISION = [
    "alexnet",
    "vgg11",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "squeezenet1_0",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mnasnet0_5",
    "mnasnet1_0",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "regnet_y_400mf",
    "regnet_x_400mf",
    "convnext_tiny",
    "googlenet",
    "vit_b_32",
    "swin_t",
    "swin_v2_t",
]

TIMM = [
    "resnet10t",
    "resnet14t",
    "resnet26d",
    "resnetv2_50",
    "seresnet18",
    "ecaresnetlight",
    "skresnet18",
    "res2net50_14w_8s",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "efficientnet_lite0",
    "ghostnet_050",
    "hardcorenas_a",
    "lcnet_050",
    "tinynet_e",
    "repvgg_a0",
    "dla34",
    "convnext_atto",
    "convnextv2_atto",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "deit_tiny_patch16_224",
    "vit_tiny_patch16_224",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "crossvit_tiny_240",
    "levit_128s",
    "poolformer_s12",
    "mixer_s32_224",
    "resmlp_12_224",
    "gmlp_ti16_224",
    "coat_lite_tiny",
    "pit_ti_224",
    "visformer_tiny",
    "fastvit_t8",
    "efficientformer_l1",
    "inception_next_atto",
    "starnet_s1",
    "nf_regnet_b0",
    "rexnet_100",
    "volo_d1_224",
    "pvt_v2_b0",
    "twins_svt_small",
    "nest_tiny",
    "tnt_s_legacy_patch16_224",
    "hgnetv2_b0",
]


def list_vision_models() -> Iterator[tuple[str, Callable[[], Case]]]:
    """Yield the name of every model of both libraries, and what builds it."""
    try:
        import torchvision  # type: ignore[import-not-found]
    except (ImportError, RuntimeError):  # it needs the very PyTorch that it was built for
        torchvision = None
    if torchvision is not None:
        for name in TORCHVISION:
            yield f"torchvision {name}", partial(_build_torchvision, name)
    try:
        import timm  # type: ignore[import-not-found]
    except (ImportError, RuntimeError):
        timm = None
    if timm is not None:
        for name in TIMM:
            yield f"timm {name}", partial(_build_timm, name)


def _build_torchvision(name: str) -> Case:
    from torchvision import models

    options = {"aux_logits": False} if name == "googlenet" else {}
    net = models.get_model(name, weights=None, num_classes=CLASSES, **options)
    size = 224 if name == "vit_b_32" else 64
    return classify(_still(net), *draw_images(8, size))


def _build_timm(name: str) -> Case:
    import timm

    size = 64
    try:
        net = timm.create_model(name, pretrained=False, num_classes=CLASSES, img_size=size)
    except TypeError:
        net = timm.create_model(name, pretrained=False, num_classes=CLASSES)
        if "vi" in name or "mixer" in name or "mlp" in name:
            size = net.default_cfg["input_size"][-1]
    return classify(_still(net), *draw_images(8, size))


def _still(net: nn.Module) -> nn.Module:
    """Switch dropout and stochastic depth off, so that a model says the same twice."""
    for module in net.modules():
        if "drop" in type(module).__name__.lower() or "StochasticDepth" in type(module).__name__:
            module.eval()
    return net
