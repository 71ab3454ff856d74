package main

import (
	"flag"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

var update = flag.Bool("update", false, "write golden texts into the scripts and the documentation instead of comparing")

func TestMain(m *testing.M) {
	node.RunChild()
	script.Main(m, program)
}

func TestScripts(t *testing.T) { script.Run(t, program.Name, *update) }
