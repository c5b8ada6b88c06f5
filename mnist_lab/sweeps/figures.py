"""The picture in a sweep's folder: accuracy over the swept settings."""

from mnist_lab.runs.ranking import Results
from mnist_lab.viz.save import write_figure
from mnist_lab.viz.sweep import plot_accuracy_map, plot_ranking, plot_response


def save_sweep_figure(results: Results) -> str | None:
    """Save response.png of one swept setting, heat_map.png of two, ranking.png of more; return the name.

    seed does not count. None if no job is ranked, or no setting is swept.
    """
    keys = [key for key in results.varied if key != "seed"]
    if not results.ranked or not keys:
        return None
    if len(keys) == 1:
        name, figure = "response.png", plot_response(results, *keys)
    elif len(keys) == 2:
        name, figure = "heat_map.png", plot_accuracy_map(results, *keys)
    else:
        name, figure = "ranking.png", plot_ranking(results)
    write_figure(figure, results.sweep.folder / name)
    return name
