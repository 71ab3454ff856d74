package commands

import (
	"slices"

	"github.com/spf13/pflag"
)

// settings is what environment and flags say. The fields of a verb are in a struct
// of its own.
type settings struct {
	environ             []string
	kubeconfig, context string
	output              string

	credentials credentialsSettings
}

const (
	formatText = "text"
	formatJSON = "json"
)

var formats = []string{formatText, formatJSON}

// environment is what of the environment is used.
var environment = []struct{ name, meaning string }{
	{"KUBECONFIG", "the kubeconfig files, as for kubectl"},
	{"HOME", "where .kube/config is otherwise"},
	{"HTTPS_PROXY, NO_PROXY", "a proxy on the way to the API server, and the addresses that need none"},
}

func defaults(environ []string) settings {
	return settings{environ: environ, output: formatText}
}

// flagSet has the flags of every verb. They may also stand before its name, so the
// defaults are what is known by then.
func (s *settings) flagSet(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringVar(&s.kubeconfig, "kubeconfig", s.kubeconfig, "`FILE` with the access to the cluster; as for kubectl otherwise")
	f.StringVar(&s.context, "context", s.context, "`NAME` of the context in it; the current one otherwise")
	f.StringVarP(&s.output, "output", "o", s.output, "`FORMAT` of the answer: text or json")
	values(f, "output", formats...)
	return f
}

// Annotations of a flag, for the completion of its value.
const (
	valueWords  = "words"
	valueFile   = "file"
	valueFolder = "folder"
)

// values says which words a flag takes.
func values(f *pflag.FlagSet, flag string, words ...string) { annotate(f, flag, valueWords, words...) }

// annotate panics when there is no such flag: the table is wrong.
func annotate(f *pflag.FlagSet, flag, key string, words ...string) {
	if err := f.SetAnnotation(flag, key, slices.Clone(words)); err != nil {
		panic(err)
	}
}

// kindOfValue says with what the value of a flag is completed: words, or the names
// of files or folders, if its placeholder says so.
func kindOfValue(f *pflag.Flag) (kind string, words []string) {
	if words, ok := f.Annotations[valueWords]; ok {
		return valueWords, words
	}
	switch name, _ := pflag.UnquoteUsage(f); name {
	case "FILE", "PROGRAM":
		return valueFile, nil
	case "DIR":
		return valueFolder, nil
	}
	return "", nil
}
