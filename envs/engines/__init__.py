"""What steps the worlds: MuJoCo on the CPU, mujoco_warp on a GPU."""
