"""The page of `openjepa report`: a run's training, health and evaluation.

A run's page is made from its folder (`logs`, drawn by `curves`, `verdict` and `scorecard`) and its network on held-out
inputs (`samples`, drawn by `space` and `similarity`). `live` shows a run that is still training,
from its logs alone. Nothing here knows a recipe; a part that a run cannot give is left out with the reason.
"""
