"""Cooperative pushing: Warp soft body, planner, environment."""
