package main

import "flag"

var update = flag.Bool("update", false, "write golden texts into the scripts and the documentation instead of comparing")
