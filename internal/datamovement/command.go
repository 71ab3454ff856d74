package datamovement

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// CheckCommand refuses options that the rabbit could not put where they belong.
// It replaces text: options go behind the first place where the letters dcp or
// mpirun are, words or not (contract nnf-dm.md 7). In a profile without that
// program, the first place could be within a path.
func CheckCommand(command string, dm *nnf.DataMovement) error {
	c := &dm.Spec.UserConfig
	for _, t := range []struct{ name, field, options string }{
		{dcpTool.name, fieldDCPOptions, c.DCPOptions}, {mpirunTool.name, fieldMPIRunOptions, c.MPIRunOptions},
	} {
		if strings.TrimSpace(t.options) == "" {
			continue
		}
		i := strings.Index(command, t.name)
		if i < 0 || !wordAt(command, i, len(t.name)) {
			return refused(t.field, t.options, "the profile's command does not run "+t.name)
		}
		before := command[:i]
		for _, v := range []struct{ name, value string }{{"$SRC", dm.Spec.Source.Path}, {"$DEST", dm.Spec.Destination.Path}} {
			if strings.Contains(before, v.name) && strings.Contains(v.value, t.name) {
				return refused(t.field, t.options, "the profile's command names the path "+quote(v.value)+", which contains "+t.name+", before it runs "+t.name)
			}
		}
	}
	return nil
}

// wordAt tells whether s[i:i+n] is a program's name: a word, or the end of a
// path.
func wordAt(s string, i, n int) bool {
	start := i == 0 || strings.IndexByte(" \t\n/;&|(", s[i-1]) >= 0
	end := i+n == len(s) || strings.IndexByte(" \t\n", s[i+n]) >= 0
	return start && end
}
