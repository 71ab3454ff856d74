package kube

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing may go on in the background once a watch has ended: what ticks on a
// node disturbs the job that runs there.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
