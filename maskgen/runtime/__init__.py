"""What every long command stands on: files, images, an output folder, processes, a cluster, the command line."""
