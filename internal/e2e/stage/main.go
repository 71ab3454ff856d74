// Package stage is a laboratory with a real API server in it, on which tests
// play scenes with the daemon. One API server serves a test binary; each test
// has a node, that is a namespace, of its own.
//
// It must not know what a scene is about: it asserts nothing but that a scene
// leaves nothing behind.
package stage

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// RequireVar makes a machine that cannot run the tests a failure.
const RequireVar = "E2E_REQUIRE"

var (
	theLab     *lab.Lab
	theCluster *lab.Cluster
	whyNot     string
)

// Main is what TestMain calls: os.Exit(stage.Main(m)). It enters the
// laboratory, starts the API server, runs the tests and takes all down again.
// With CRDS set, the API server has the definitions of that folder.
func Main(m *testing.M) int {
	features := lab.Enter()
	if !features.Private {
		whyNot = "no laboratory on this machine: " + features.Why
	} else if !features.Full() {
		whyNot = "real mounts are not possible here: " + features.Why
	}
	if whyNot != "" {
		fmt.Fprintln(os.Stderr, "e2e: not run:", whyNot)
		if os.Getenv(RequireVar) != "" {
			return 1
		}
		return m.Run()
	}
	code, err := play(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return code
}

func play(m *testing.M) (code int, err error) {
	if theLab, err = lab.New(""); err != nil {
		return 1, err
	}
	defer func() {
		if cerr := theLab.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("the laboratory left something: %w", cerr)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	o := lab.ClusterOptions{}
	if dir := os.Getenv("CRDS"); dir != "" {
		o.Args = []string{"--crds", dir}
	}
	if theCluster, err = theLab.StartCluster(ctx, o); err != nil {
		return 1, err
	}
	return m.Run(), nil
}
