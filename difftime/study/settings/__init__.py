"""The settings of a study and its grid of cells, one file per section. No torch: Snakemake reads them at every call.

A cell is dataset × SDE × network × T; its seeds are a batch inside it. What determines a cell's weights is in `Cell`
and goes into its cell.json; what only measures them goes into a file of each measurement.
"""

from difftime.study.settings.base import S, Settings, parse
from difftime.study.settings.blocks import KEYS, Block, cell_name, grid
from difftime.study.settings.cell import Cell, read_cell
from difftime.study.settings.datasets import (
    ImageDataset,
    MixtureDatasetSettings,
    asked_for,
    family,
    training_of,
    what_it_is,
)
from difftime.study.settings.figures import FigureSettings
from difftime.study.settings.files import BadSettings, read_files
from difftime.study.settings.grid import COLLECTED, Grid
from difftime.study.settings.images import IMAGE_KINDS, AnyImageSettings, ImageNeeds, ImageSettings
from difftime.study.settings.measures import (
    MEASUREMENTS,
    ElboSettings,
    Family,
    ImageElboSettings,
    ImageLikelihoodSettings,
    ImageSampleSettings,
    LikelihoodSettings,
    Measure,
    MixtureElboSettings,
    MixtureLikelihoodSettings,
    MixtureSampleSettings,
    SampleSettings,
)
from difftime.study.settings.mixtures import MixtureSettings
from difftime.study.settings.nets import NCSNPP_SHAPE, MLPSettings, NCSNppSettings, PretrainedSettings
from difftime.study.settings.noise import (
    FITTED,
    FittedName,
    FlowNoiseSettings,
    FullNoiseSettings,
    MixtureNoiseSettings,
    NoiseName,
    NoiseSettings,
)
from difftime.study.settings.optimum import OptimumSettings
from difftime.study.settings.plain import add_blocks, plain_study, study_in
from difftime.study.settings.reading import CONFIG, Measurement, read_measurement, read_study
from difftime.study.settings.sdes import OfModelSettings, SDESettings, TabulatedSettings
from difftime.study.settings.study import Study
from difftime.study.settings.training import ImageTrainingSettings, TrainingSettings
