"""What runs models: a program of its own, started by `studio.core.running.child`. Only here are runtimes imported."""
