package config

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

func TestCheckArgs(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "nonsense") // nothing but the arguments counts
	for _, tt := range []struct {
		args string
		rest []string
		says string
	}{
		{"", nil, ""},
		{"--node-name x -kubernetes-qps=5 --config=/none/such", nil, ""},
		{"--zap-devel", nil, ""},
		{"--node-name x now", []string{"now"}, ""},
		{"--node-nam x", nil, "did you mean --node-name?"},
		{"--kubernetes-qps=none", nil, "kubernetes.qps"},
		{"--node-name", nil, "node-name"},
	} {
		rest, err := CheckArgs(ClientmountdTable(new(Clientmountd)), strings.Fields(tt.args))
		if _, wrong := errors.AsType[*usage.Error](err); wrong != (tt.says != "") || wrong && !strings.Contains(err.Error()+hint.Of(err), tt.says) {
			t.Errorf("%q: %v", tt.args, err)
		} else if err == nil && !slices.Equal(rest, tt.rest) {
			t.Errorf("%q: rest %q", tt.args, rest)
		}
	}
	if _, err := CheckArgs(ClientmountdTable(new(Clientmountd)), []string{"--node-name=x", "-h"}); !errors.Is(err, ErrHelp) {
		t.Errorf("help: %v", err)
	}
}
