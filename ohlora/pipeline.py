"""The stages, declared once: what each does, by which command, and what it reads and writes.

``dvc.yaml``, the tables of stages in docs, ``ohlora doctor``, the studio and the hint of a missing input are all made
from this declaration and the worlds' files (:mod:`ohlora.worlds`).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ohlora import attributes, renamed, worlds
from ohlora.errors import DataError, MissingArtifactError
from ohlora.worlds import Stage, World

FILTERS = ("gender", "quality", "age", "glass")
ENSEMBLES = " ".join(f"filter_{name}/{name}.safetensors" for name in FILTERS)
JUDGES = " ".join(f"judge_{name}/{name}.safetensors" for name in FILTERS)
IMPORTED = "imported_v1/{gender,quality}.safetensors"
NETWORKS = "{generator,discriminator}.safetensors"
DRAWN = "{images,masks,manifest.csv,normalization.json}"
GENERATED = "{images,manifest.csv,latents.safetensors,settings.json}"
SCORED = "{scores.csv,raw_scores.csv,normalization.json}"
TESTED = "{test_result.csv,test_statistics.csv,latents.safetensors}"
PUBLISHED = "stylegan_celeba_partial256x256.pth"
V8 = "finetune_v8/generator.safetensors"
OF_V1 = f"original_labelled/{NETWORKS} score_properties/scores.csv generate_original/images {IMPORTED}"


def _paths(text: str) -> tuple[str, ...]:
    """Paths separated by spaces, with alternatives in braces as in a shell: ``drawn/{images,masks}``."""
    found: list[str] = []
    for word in text.split():
        before, _, rest = word.partition("{")
        alternatives, _, after = rest.partition("}")
        found += [before + alternative + after for alternative in alternatives.split(",")]
    return tuple(found)


def _stage(name: str, number: str, about: str, korean: str, command: str, *paths: str, options: str = "") -> Stage:
    inputs, outputs = map(_paths, paths)
    return Stage(name, number, about, korean, command, inputs, outputs, options)


# fmt: off
_DECLARED = (
    _stage("drawn", "", "drawn faces with labels", "라벨이 달린 그린 얼굴", "draw-faces {drawn}", "",
           f"drawn/{DRAWN}"),
    _stage("drawn_judge", "", "other drawn faces, to train the judges", "판정 네트워크를 학습할 다른 그린 얼굴",
           "draw-faces {drawn_judge}", "", f"drawn_judge/{DRAWN}", options="--seed 2"),
    _stage("original", "0", "the original StyleGAN, as published", "공개된 StyleGAN 가져오기",
           f"import-weights {{./{PUBLISHED}}} {{original}}", f"./{PUBLISHED}", f"original/{NETWORKS}"),
    _stage("original_labelled", "0", "the original StyleGAN with label inputs",
           "라벨 입력을 더한 원본 StyleGAN",
           f"import-weights {{./{PUBLISHED}}} {{original_labelled}}", f"./{PUBLISHED}",
           f"original_labelled/{NETWORKS}", options="--add-labels"),
    _stage("pretrain", "", "a StyleGAN, trained on images of your own", "직접 모은 이미지로 학습한 StyleGAN", "fit",
           "data/images property_cnn/property.safetensors", f"pretrain/{NETWORKS}"),
    _stage("generate_original", "1", "images of the original StyleGAN", "원본 StyleGAN의 이미지", "predict",
           "original/generator.safetensors", f"generate_original/{GENERATED}"),
    *(_stage(f"imported_{name}", "2", f"the published ensemble of stage 2, {name}", f"공개된 2단계 앙상블, {name}",
             f"import-weights {' '.join(f'{name}_model_{k}.pt' for k in range(5))} {{imported_v1}}",
             f"./{name}_model_{{0,1,2,3,4}}.pt", f"imported_v1/{name}.safetensors")
      for name in ("gender", "quality")),
    *(_stage(f"imported_first_{name}", "6", f"initial weights of the filter, {name}", f"필터의 초기 가중치, {name}",
             f"import-weights {name}_model_0.pt {{imported}}",
             f"./{name}_model_0.pt", f"imported/{name}.safetensors")
      for name in ("gender", "quality")),
    *(_stage(f"filter_{name}", "2, 6", f"filter ensemble, {name}", f"필터 앙상블, {name}",
             "fit", f"labels/labels_2k.csv generate_v1/images{start}", f"filter_{name}/{name}.safetensors")
      for name, start in (("gender", " imported/gender.safetensors"), ("quality", " imported/quality.safetensors"),
                          ("age", ""), ("glass", ""))),
    _stage("score_original", "2", "scores of these images by the filters", "그 이미지의 필터 점수", "predict",
           f"generate_original/{{images,manifest.csv}} {IMPORTED}", "score_original/scores.csv"),
    _stage("filter_original", "2", "keep the images within the limits", "한도 안의 이미지만 남기기",
           "filter {score_original/scores.csv} {filter_original/manifest.csv}",
           "score_original/scores.csv", "filter_original/manifest.csv",
           options="--keep 'gender >= 0.7' --keep 'quality >= 0.9'"),
    _stage("face_parser", "3", "face parser", "얼굴 파서", "fit", "CelebAMask-HQ", "face_parser/parser.safetensors"),
    _stage("score_drawn", "3", "scores of the drawn faces, the scale for others", "그린 얼굴의 점수, 다른 점수의 척도",
           "predict", "drawn/{images,manifest.csv} face_parser/parser.safetensors", f"score_drawn/{SCORED}"),
    _stage("score_properties", "3", "parse and score the images kept", "남긴 이미지의 파싱과 점수", "predict",
           "filter_original/manifest.csv generate_original/images face_parser/parser.safetensors",
           f"score_properties/{SCORED}"),
    _stage("property_cnn", "4", "property CNN", "속성 CNN", "fit",
           "score_properties/scores.csv generate_original/images", "property_cnn/property.safetensors"),
    _stage("finetune_v1", "5", "fine-tune v1: the concept, conditioned on scores",
           "파인튜닝 v1: 컨셉, 점수를 조건으로", "fit", f"{OF_V1} property_cnn/property.safetensors",
           f"finetune_v1/{NETWORKS}"),
    _stage("finetune_v1_projection", "5", "fine-tune v1 with a projection head, which learns the labels",
           "파인튜닝 v1, 라벨을 학습하는 프로젝션 헤드",
           "fit", f"{OF_V1} property_cnn/property.safetensors", f"finetune_v1_projection/{NETWORKS}"),
    _stage("generate_v1", "6", "images of fine-tune v1", "파인튜닝 v1의 이미지", "predict",
           "finetune_v1/generator.safetensors", f"generate_v1/{GENERATED}"),
    _stage("score_v1", "6", "scores of these images by all filters", "그 이미지의 모든 필터 점수", "predict",
           f"generate_v1/{{images,manifest.csv}} {ENSEMBLES}", "score_v1/scores.csv"),
    _stage("filter_v1", "6", "keep the images within strict limits", "엄격한 한도 안의 이미지만 남기기",
           "filter {score_v1/scores.csv} {filter_v1/manifest.csv}", "score_v1/scores.csv",
           "filter_v1/manifest.csv",
           options="--keep 'gender >= 0.92' --keep 'quality >= 0.9' --keep 'age <= 0.008' --keep 'glass <= 0.01' "
           "--from-index 2000"),
    _stage("score_hairstyle", "7", "parse and score the images of v1 kept", "남긴 v1 이미지의 파싱과 점수", "predict",
           "filter_v1/manifest.csv generate_v1/images face_parser/parser.safetensors", f"score_hairstyle/{SCORED}"),
    _stage("hairstyle_cnn", "7", "hairstyle CNN", "머리 모양 CNN", "fit",
           "score_hairstyle/scores.csv generate_v1/images", "hairstyle_cnn/hairstyle.safetensors"),
    _stage("merged", "7", "property and hairstyle CNN, merged: the search CNN, or the first of several",
           "속성 CNN과 머리 모양 CNN 합치기: 탐색 CNN, 또는 여럿 가운데 첫째",
           "merge {property_cnn/property.safetensors} {hairstyle_cnn/hairstyle.safetensors} "
           "{merged/merged.safetensors}", "property_cnn/property.safetensors hairstyle_cnn/hairstyle.safetensors",
           "merged/merged.safetensors"),
    _stage("search", "7", "three CNNs as an ensemble, which searches and is harder to deceive",
           "세 CNN의 앙상블: 속이기 어려운 탐색 CNN",
           "merge {merged/merged.safetensors} {second_cnn/property.safetensors} {third_cnn/property.safetensors} "
           "{search/search.safetensors}",
           "merged/merged.safetensors {second_cnn,third_cnn}/property.safetensors", "search/search.safetensors"),
    _stage("judge_cnn", "7", "the judge CNN, which scores edits in their evaluation",
           "판정 CNN: 편집을 평가할 때 점수를 재는 CNN", "fit", "score_hairstyle/scores.csv generate_v1/images",
           "judge_cnn/judge.safetensors"),
    _stage("identity", "7", "identity network: the same person across expressions, to guide a search",
           "신원 네트워크: 표정이 달라도 같은 사람을 알아봄, 탐색용", "fit", "", "identity/identity.safetensors"),
    _stage("judge_identity", "7", "another identity network, to judge edits", "편집을 판정할 다른 신원 네트워크", "fit",
           "", "judge_identity/identity.safetensors"),
    _stage("finetune_v8", "8", "fine-tune v8 on the images kept", "남긴 이미지로 파인튜닝 v8", "fit",
           f"finetune_v1/{NETWORKS} filter_v1/manifest.csv generate_v1/images {ENSEMBLES} merged/merged.safetensors",
           f"finetune_v8/{NETWORKS}"),
    _stage("sample_v8", "9", "style codes and the scores of their images", "스타일 코드와 그 이미지의 점수", "predict",
           f"{V8} merged/merged.safetensors", "sample_v8/{shards,medians.json,settings.json}"),
    _stage("vectorfind_v8", "10", "directions, the original's way: by SVM", "방향 찾기, 원본 방식: SVM", "fit",
           f"sample_v8/{{shards,medians.json}} {V8} merged/merged.safetensors judge_cnn/judge.safetensors",
           "vectorfind_v8/directions.safetensors"),
    _stage("evaluate_v8", "11", "evaluation of these directions", "그 방향의 평가", "test",
           f"vectorfind_v8/directions.safetensors {V8} merged/merged.safetensors judge_cnn/judge.safetensors",
           f"evaluate_v8/{TESTED}"),
    _stage("vectorfind_v9", "10", "directions, our way: by gradients", "방향 찾기, 우리 방식: 그래디언트", "fit",
           f"{V8} merged/merged.safetensors judge_cnn/judge.safetensors", "vectorfind_v9/directions.safetensors"),
    _stage("evaluate_v9", "11", "evaluation of these directions", "그 방향의 평가", "test",
           f"vectorfind_v9/directions.safetensors {V8} merged/merged.safetensors judge_cnn/judge.safetensors",
           f"evaluate_v9/{TESTED}"),
    _stage("candidates", "12", "the latents that passed the evaluation, best first",
           "평가를 통과한 잠재 벡터, 순위대로",
           "select {evaluate_v9} {characters}", f"evaluate_v9/{TESTED} {V8}",
           "characters/{candidates.csv,candidates.png}", options=f"--generator {{{V8}}}"),
    _stage("touch_up", "12", "the best of them, their edits trained further and tested again",
           "가장 좋은 것들, 편집을 더 학습하고 다시 평가", "test",
           f"evaluate_v9/{TESTED} vectorfind_v9/directions.safetensors {V8} merged/merged.safetensors "
           "judge_cnn/judge.safetensors", f"touch_up/{TESTED}"),
    _stage("character", "12", "the best of these as a character", "그중 가장 좋은 것을 캐릭터로",
           "export-character tested {touch_up} best {characters/mina.safetensors}",
           f"touch_up/{TESTED} {V8}", "characters/mina.safetensors", options=f"--generator {{{V8}}}"),
    _stage("animation", "13", "the character, moving", "움직이는 캐릭터",
           "animate {characters/mina.safetensors} {characters/mina.webp}",
           "characters/mina.safetensors", "characters/mina.webp"),
    _stage("page", "13", "the character as a web page that needs no server", "서버가 필요 없는 웹 페이지로 만든 캐릭터",
           "export-character saved {characters/mina.safetensors} {characters/mina.html}",
           "characters/mina.safetensors", "characters/mina.html"),
    _stage("measure_attributes", "", "accuracy of filters, parser and CNNs", "필터, 파서, CNN의 정확도",
           "scripts/measure_attributes.py",
           f"{ENSEMBLES} {JUDGES} face_parser/parser.safetensors merged/merged.safetensors judge_cnn/judge.safetensors "
           "judge_identity/identity.safetensors original/generator.safetensors",
           "results/attributes.json ./docs/results/attributes.csv"),
    _stage("measure_finetuning", "", "quality of the fine-tunes", "파인튜닝의 품질", "scripts/measure_finetuning.py",
           f"{JUDGES} judge_cnn/judge.safetensors original/generator.safetensors finetune_v1/generator.safetensors "
           f"finetune_v1_projection/generator.safetensors {V8}",
           "results/finetuning.json ./docs/results/finetuning.csv"),
    _stage("measure_directions", "", "effect and leakage of the edits", "편집의 효과와 누출",
           "scripts/measure_directions.py",
           "evaluate_v8/{test_result.csv,test_statistics.csv} evaluate_v9/{test_result.csv,test_statistics.csv}",
           "results/directions.json ./docs/results/directions.csv"),
)
# fmt: on
STAGES = {stage.name: stage for stage in _DECLARED}
"""The stages by name, without a world."""

_in_use: list[World] = []


def world(given: str) -> World:
    """A world by its name, or by the path of its file; errors as for :func:`ohlora.worlds.read`."""
    return worlds.read(given, STAGES)


def use(of: World) -> None:
    """Makes a world the one whose attributes are meant, and that hints of missing inputs speak of first."""
    _in_use[:] = [of]
    attributes.use(of.attributes)


def path(name: str) -> Path:
    """Where the world in use has a file or folder; see :meth:`ohlora.worlds.World.path`."""
    return (_in_use[0] if _in_use else world(worlds.DEFAULT)).path(name)


def hint(path: str | Path) -> str | None:
    """How to come by what is missing: what a stage makes, a part of it (one image), or the folder it lies in.

    Returns:
        The end of a sentence: which command moves it from where an earlier ohlora put it, which makes it, or what the
        world's file says of it. None where nothing is known.
    """
    if moved := renamed.moving(path):
        return f"an earlier ohlora named it otherwise; move it: {moved}"
    wanted = Path(path).absolute()

    def fits(made: Path) -> bool:
        return made.absolute().is_relative_to(wanted) or wanted.is_relative_to(made.absolute())

    for of in (*_in_use, *(world(name) for name in (worlds.DEFAULT, *worlds.SHIPPED))):
        for stage in of.stages.values():
            if any(fits(made) for made in of.makes(stage)):
                return f"it is made by: {of.command(stage)}"
        for known, text in of.hints.items():
            if fits(of.path(known)):
                return text
    return None


def require(path: str | Path, folder: bool = False) -> None:
    """Insists on a file, or with ``folder`` on a folder.

    Raises:
        MissingArtifactError: Naming the path and how to come by it (:func:`hint`).
        DataError: If it is there, and may not be read.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        how = hint(path)
        raise MissingArtifactError(f"{path} does not exist" + (f"; {how}" if how else "")) from error
    except (OSError, ValueError) as error:  # a name with a NUL, or too long
        raise DataError(f"{path} cannot be read: {error.strerror if isinstance(error, OSError) else error}") from error
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        kind = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a pipe or device"
        raise MissingArtifactError(f"{path} is {kind}; expected a {'folder' if folder else 'file'}")
    if not os.access(path, os.R_OK | (os.X_OK if folder else 0)):
        raise DataError(f"{path} may not be read; look at its owner and permissions")
