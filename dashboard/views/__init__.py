"""The pages of the dashboard, one module each."""

from dashboard.views import compare, cost, images, leaderboard, matrix, run, scaling

PAGES = {
    "Leaderboard": leaderboard.show,
    "Matrix": matrix.show,
    "Compare": compare.show,
    "Cost": cost.show,
    "Scaling": scaling.show,
    "Run": run.show,
    "Images": images.show,
}
