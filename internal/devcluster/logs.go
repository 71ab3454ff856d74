package main

import (
	"flag"
	"io"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// redirectLogs redirects the log of the Kubernetes libraries to a file, which it
// truncates, or to standard error. The returned function stops the redirection.
func redirectLogs(path string, verbose bool, stderr io.Writer) (func(), error) {
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL"} {
		if err := flags.Set(name, value); err != nil {
			return nil, err
		}
	}
	if verbose {
		klog.SetOutput(stderr)
		return klog.Flush, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	klog.SetOutput(f)
	return func() {
		klog.Flush()
		klog.SetOutput(io.Discard) // goroutines may still write
		f.Close()
	}, nil
}
