package deploy

import (
	"slices"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

// Further packages from a pattern that the shell has expanded are not host lists.
func TestArgumentsOfInstall(t *testing.T) {
	good := func() installSettings {
		return installSettings{ready: time.Minute, rollout: rollout{limit: time.Minute, nodes: nodesSettings{parallel: 1, ssh: remote.SSH{Connect: time.Second}}}}
	}
	c := good()
	c.rpms = []string{"a.rpm"}
	names, err := c.check([]string{"b.rpm", "compute-01"})
	if err != nil || !slices.Equal(names, []string{"compute-01"}) || !slices.Equal(c.rpms, []string{"a.rpm", "b.rpm"}) {
		t.Errorf("%q %q %v", names, c.rpms, err)
	}
	c = good()
	if names, err = c.check([]string{"b.rpm"}); err != nil || !slices.Equal(names, []string{"b.rpm"}) {
		t.Errorf("%q %v", names, err)
	}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
		err  bool
	}{
		{"", nil, false},
		{"  ", nil, false},
		{"--kubernetes-qps 50  --kubernetes-burst 100", []string{"--kubernetes-qps", "50", "--kubernetes-burst", "100"}, false},
		{`--x="a b" 'c d'e`, []string{"--x=a b", "c de"}, false},
		{`"" ''`, []string{"", ""}, false},
		{`"it's" 'say "hi"'`, []string{"it's", `say "hi"`}, false},
		{`$HOME $(id) \n`, []string{"$HOME", "$(id)", `\n`}, false},
		{`"open`, nil, true},
		{"a'", nil, true},
	} {
		if got, err := words(tt.text); !slices.Equal(got, tt.want) || (err != nil) != tt.err {
			t.Errorf("%q: %q %v", tt.text, got, err)
		}
	}
}
