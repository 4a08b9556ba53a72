"""The stages, declared once: what each does, by which command, and what it reads and writes.

``dvc.yaml``, the tables of stages in README and docs, ``ohlora doctor``, the studio and the hint of a missing input are
all made from this declaration and the worlds' files (:mod:`ohlora.worlds`).
"""

from __future__ import annotations

from pathlib import Path

from ohlora import renamed, worlds
from ohlora.errors import MissingArtifactError
from ohlora.worlds import Stage, World

FILTERS = ("gender", "quality", "age", "glass")
GENERATED = ("images", "manifest.csv", "latents.safetensors", "settings.json")
SCORED = ("scores.csv", "raw_scores.csv", "normalization.json")
TESTED = ("test_result.csv", "test_statistics.csv", "latents.safetensors")
NETWORKS = ("generator.safetensors", "discriminator.safetensors")


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


ENSEMBLES = tuple(f"filter_{name}/{name}.safetensors" for name in FILTERS)
IMPORTED = _in("imported_v1", "gender.safetensors", "quality.safetensors")
DRAWN = ("images", "masks", "manifest.csv", "normalization.json")
PUBLISHED = "stylegan_celeba_partial256x256.pth"

STAGES: tuple[Stage, ...] = (
    Stage(
        "drawn",
        "",
        "annotated faces, drawn",
        "scripts/draw_faces.py {drawn}",
        outputs=_in("drawn", *DRAWN),
        korean="주석이 달린 얼굴 그리기",
    ),
    Stage(
        "drawn_judge",
        "",
        "others, for the judges",
        "scripts/draw_faces.py {drawn_judge}",
        outputs=_in("drawn_judge", *DRAWN),
        options="--seed 2",
        korean="판정용 얼굴 그리기",
    ),
    Stage(
        "original",
        "0",
        "the original StyleGAN, as published",
        f"scripts/import_weights.py {PUBLISHED} {{original}}",
        (f"./{PUBLISHED}",),
        _in("original", *NETWORKS),
        korean="공개된 StyleGAN 가져오기",
    ),
    Stage(
        "original_labelled",
        "0",
        "the same with seven label inputs",
        f"scripts/import_weights.py {PUBLISHED} {{original_labelled}}",
        (f"./{PUBLISHED}",),
        _in("original_labelled", *NETWORKS),
        options="--add-labels 7",
        korean="같은 것에 라벨 입력 일곱 개",
    ),
    Stage(
        "generate_original",
        "1",
        "images of the original StyleGAN",
        "predict",
        ("original/generator.safetensors",),
        _in("generate_original", *GENERATED),
        korean="원본 StyleGAN의 이미지",
    ),
    *(
        Stage(
            f"imported_{name}",
            "2",
            f"the published ensemble of stage 2, {name}",
            f"scripts/import_weights.py {' '.join(f'{name}_model_{k}.pt' for k in range(5))} {{imported_v1}}",
            tuple(f"./{name}_model_{k}.pt" for k in range(5)),
            (f"imported_v1/{name}.safetensors",),
            korean=f"공개된 2단계 앙상블, {name}",
        )
        for name in ("gender", "quality")
    ),
    *(
        Stage(
            f"imported_first_{name}",
            "6",
            f"where the filter starts, {name}",
            f"scripts/import_weights.py {name}_model_0.pt {{imported}}",
            (f"./{name}_model_0.pt",),
            (f"imported/{name}.safetensors",),
            korean=f"필터의 출발점, {name}",
        )
        for name in ("gender", "quality")
    ),
    *(
        Stage(
            f"filter_{name}",
            "2, 6",
            f"filter ensemble, {name}",
            "fit",
            (
                "labels/labels_2k.csv",
                "generate_v1/images",
                *((f"imported/{name}.safetensors",) if name in ("gender", "quality") else ()),
            ),
            (f"filter_{name}/{name}.safetensors",),
            korean=f"필터 앙상블, {name}",
        )
        for name in FILTERS
    ),
    Stage(
        "score_original",
        "2",
        "the filters score them",
        "predict",
        (*_in("generate_original", "images", "manifest.csv"), *IMPORTED),
        ("score_original/scores.csv",),
        korean="필터로 채점",
    ),
    Stage(
        "filter_original",
        "2",
        "keep what fits",
        "scripts/filter_images.py {score_original/scores.csv} {filter_original/manifest.csv}",
        ("score_original/scores.csv",),
        ("filter_original/manifest.csv",),
        options="--keep 'gender >= 0.7' --keep 'quality >= 0.9'",
        korean="맞는 것만 남기기",
    ),
    Stage(
        "face_parser",
        "3",
        "face parser",
        "fit",
        ("CelebAMask-HQ",),
        ("face_parser/parser.safetensors",),
        korean="얼굴 파서",
    ),
    Stage(
        "score_drawn",
        "3",
        "the scale of the drawn faces",
        "predict",
        (*_in("drawn", "images", "manifest.csv"), "face_parser/parser.safetensors"),
        _in("score_drawn", *SCORED),
        korean="그린 얼굴의 점수 척도",
    ),
    Stage(
        "score_properties",
        "3",
        "parse and score what was kept",
        "predict",
        ("filter_original/manifest.csv", "generate_original/images", "face_parser/parser.safetensors"),
        _in("score_properties", *SCORED),
        korean="남긴 이미지의 파싱과 점수",
    ),
    Stage(
        "property_cnn",
        "4",
        "property CNN",
        "fit",
        ("score_properties/scores.csv", "generate_original/images"),
        ("property_cnn/property.safetensors",),
        korean="속성 CNN",
    ),
    *(
        Stage(
            name,
            "5",
            about,
            "fit",
            (
                *_in("original_labelled", *NETWORKS),
                "score_properties/scores.csv",
                "generate_original/images",
                *IMPORTED,
                "property_cnn/property.safetensors",
            ),
            _in(name, *NETWORKS),
            korean=korean,
        )
        for name, about, korean in (
            (
                "finetune_v1",
                "fine-tune v1: the concept, conditioned on seven scores",
                "파인튜닝 v1: 컨셉, 일곱 점수를 조건으로",
            ),
            ("finetune_v1_projection", "fine-tune v1 with labels that work", "조건이 실제로 작동하는 파인튜닝 v1"),
        )
    ),
    Stage(
        "generate_v1",
        "6",
        "images of fine-tune v1",
        "predict",
        ("finetune_v1/generator.safetensors",),
        _in("generate_v1", *GENERATED),
        korean="파인튜닝 v1의 이미지",
    ),
    Stage(
        "score_v1",
        "6",
        "all four filters score them",
        "predict",
        (*_in("generate_v1", "images", "manifest.csv"), *ENSEMBLES),
        ("score_v1/scores.csv",),
        korean="필터 넷으로 채점",
    ),
    Stage(
        "filter_v1",
        "6",
        "keep what fits beyond doubt",
        "scripts/filter_images.py {score_v1/scores.csv} {filter_v1/manifest.csv}",
        ("score_v1/scores.csv",),
        ("filter_v1/manifest.csv",),
        options="--keep 'gender >= 0.92' --keep 'quality >= 0.9' --keep 'age <= 0.008' --keep 'glass <= 0.01' "
        "--from-index 2000",
        korean="확실히 맞는 것만 남기기",
    ),
    Stage(
        "score_hairstyle",
        "7",
        "parse and score the second set",
        "predict",
        ("filter_v1/manifest.csv", "generate_v1/images", "face_parser/parser.safetensors"),
        _in("score_hairstyle", *SCORED),
        korean="두 번째 집합의 파싱과 점수",
    ),
    Stage(
        "hairstyle_cnn",
        "7",
        "hairstyle CNN",
        "fit",
        ("score_hairstyle/scores.csv", "generate_v1/images"),
        ("hairstyle_cnn/hairstyle.safetensors",),
        korean="머리 모양 CNN",
    ),
    Stage(
        "merged",
        "7",
        "the search CNN: property and hairstyle CNN, merged",
        "scripts/merge_cnns.py {property_cnn/property.safetensors} {hairstyle_cnn/hairstyle.safetensors} "
        "{merged/merged.safetensors}",
        ("property_cnn/property.safetensors", "hairstyle_cnn/hairstyle.safetensors"),
        ("merged/merged.safetensors",),
        korean="탐색 CNN: 속성 CNN과 머리 모양 CNN 합치기",
    ),
    Stage(
        "judge_cnn",
        "7",
        "the judge CNN, which measures what the search CNN finds",
        "fit",
        ("score_hairstyle/scores.csv", "generate_v1/images"),
        ("judge_cnn/judge.safetensors",),
        korean="판정 CNN: 탐색 CNN이 찾은 것을 재는 CNN",
    ),
    Stage(
        "finetune_v8",
        "8",
        "fine-tune v8 on what was kept",
        "fit",
        (
            *_in("finetune_v1", *NETWORKS),
            "filter_v1/manifest.csv",
            "generate_v1/images",
            *ENSEMBLES,
            "merged/merged.safetensors",
        ),
        _in("finetune_v8", *NETWORKS),
        korean="남긴 것으로 파인튜닝 v8",
    ),
    Stage(
        "sample_v8",
        "9",
        "style codes and the scores of their images",
        "predict",
        ("finetune_v8/generator.safetensors", "merged/merged.safetensors"),
        _in("sample_v8", "shards", "medians.json", "settings.json"),
        korean="스타일 코드와 그 이미지의 점수",
    ),
    Stage(
        "vectorfind_v8",
        "10",
        "directions, the original's way: by SVM",
        "fit",
        _in("sample_v8", "shards", "medians.json"),
        ("vectorfind_v8/directions.safetensors",),
        korean="방향 찾기, 원본 방식: SVM",
    ),
    Stage(
        "evaluate_v8",
        "11",
        "image generation test of these directions",
        "test",
        (
            "vectorfind_v8/directions.safetensors",
            "finetune_v8/generator.safetensors",
            "merged/merged.safetensors",
            "judge_cnn/judge.safetensors",
        ),
        _in("evaluate_v8", *TESTED),
        korean="그 방향의 이미지 생성 테스트",
    ),
    Stage(
        "vectorfind_v9",
        "10",
        "directions, our way: by gradients",
        "fit",
        ("finetune_v8/generator.safetensors", "merged/merged.safetensors"),
        ("vectorfind_v9/directions.safetensors",),
        korean="방향 찾기, 우리 방식: 그래디언트",
    ),
    Stage(
        "evaluate_v9",
        "11",
        "image generation test of these directions",
        "test",
        (
            "vectorfind_v9/directions.safetensors",
            "finetune_v8/generator.safetensors",
            "merged/merged.safetensors",
            "judge_cnn/judge.safetensors",
        ),
        _in("evaluate_v9", *TESTED),
        korean="그 방향의 이미지 생성 테스트",
    ),
    Stage(
        "candidates",
        "12",
        "the latents that pass, best first",
        "scripts/select_characters.py {evaluate_v9} {characters}",
        (*_in("evaluate_v9", *TESTED), "finetune_v8/generator.safetensors"),
        _in("characters", "candidates.csv", "candidates.png"),
        options="--generator {finetune_v8/generator.safetensors}",
        korean="통과한 잠재 벡터의 순위",
    ),
    Stage(
        "character",
        "12",
        "the best of them as a character",
        "scripts/export_character.py tested {evaluate_v9} best {characters/mina.safetensors}",
        (*_in("evaluate_v9", *TESTED), "finetune_v8/generator.safetensors"),
        ("characters/mina.safetensors",),
        options="--generator {finetune_v8/generator.safetensors}",
        korean="가장 좋은 것을 캐릭터로",
    ),
    Stage(
        "animation",
        "13",
        "the character, moving",
        "scripts/animate_character.py {characters/mina.safetensors} {characters/mina.gif}",
        ("characters/mina.safetensors",),
        ("characters/mina.gif",),
        korean="움직이는 캐릭터",
    ),
    Stage(
        "measure_attributes",
        "",
        "what filters, parser and networks reach",
        "scripts/measure_attributes.py",
        (
            *ENSEMBLES,
            *(f"judge_{name}/{name}.safetensors" for name in FILTERS),
            "face_parser/parser.safetensors",
            "merged/merged.safetensors",
            "judge_cnn/judge.safetensors",
            "original/generator.safetensors",
        ),
        metrics=("results/attributes.json",),
        plots=("./docs/results/attributes.csv",),
        korean="필터, 파서, 네트워크의 성능",
    ),
    Stage(
        "measure_finetuning",
        "",
        "how far the fine-tunes come",
        "scripts/measure_finetuning.py",
        (
            *(f"judge_{name}/{name}.safetensors" for name in FILTERS),
            "judge_cnn/judge.safetensors",
            *(f"{name}/generator.safetensors" for name in ("original", "finetune_v1", "finetune_v1_projection")),
            "finetune_v8/generator.safetensors",
        ),
        metrics=("results/finetuning.json",),
        plots=("./docs/results/finetuning.csv",),
        korean="파인튜닝의 성과",
    ),
    Stage(
        "measure_directions",
        "",
        "what the edits do",
        "scripts/measure_directions.py",
        (*_in("evaluate_v8", *TESTED[:2]), *_in("evaluate_v9", *TESTED[:2])),
        metrics=("results/directions.json",),
        plots=("./docs/results/directions.csv",),
        korean="편집의 효과",
    ),
)
DECLARED = {stage.name: stage for stage in STAGES}

_shipped: dict[str, World] = {}
_in_use: list[World] = []


def world(given: str) -> World:
    """A world by its name, or by the path of its file.

    Raises:
        ConfigError: If there is no such world, or its file says what is not known.
    """
    if given not in worlds.SHIPPED:
        return worlds.read(given, DECLARED)
    if given not in _shipped:
        _shipped[given] = worlds.read(given, DECLARED)
    return _shipped[given]


def use(of: World) -> None:
    """Makes a world the one that hints of missing inputs speak of first."""
    _in_use[:] = [of]


def hint(path: str | Path) -> str | None:
    """How to come by a file or folder that is missing.

    Args:
        path: Where it should be: what a stage makes, a part of it (one image of a folder), or the folder it lies in.

    Returns:
        The end of a sentence: which command moves it from where an earlier ohlora put it, which makes it, or what the
        world's file says of it. None where nothing is known.
    """
    moved = renamed.moving(path)
    if moved:
        return f"an earlier ohlora named it otherwise; move it: {moved}"
    wanted = Path(path).absolute()

    def fits(made: Path) -> bool:
        made = made.absolute()
        return made == wanted or made in wanted.parents or wanted in made.parents

    for of in (*_in_use, *(world(name) for name in (worlds.DEFAULT, *worlds.SHIPPED))):
        for stage in of.stages:
            if any(fits(made) for made in of.makes(stage)):
                return f"it is made by: {of.command(stage)}"
        for known, text in of.hints.items():
            if fits(of.path(known)):
                return text
    return None


def require(path: str | Path, folder: bool = False) -> None:
    """Insists on a file or folder.

    Args:
        path: Where it should be.
        folder: Whether a folder is wanted.

    Raises:
        MissingArtifactError: Naming the path and how to come by it (:func:`hint`).
    """
    path = Path(path)
    if not (path.is_dir() if folder else path.is_file()):
        how = hint(path)
        raise MissingArtifactError(f"{path} does not exist" + (f"; {how}" if how else ""))
