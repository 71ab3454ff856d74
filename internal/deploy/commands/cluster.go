package commands

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// getenv looks into the environment of the call; the last of several wins.
func (s *settings) getenv(name string) string {
	value := ""
	for _, kv := range s.environ {
		if len(kv) > len(name) && kv[:len(name)] == name && kv[len(name)] == '=' {
			value = kv[len(name)+1:]
		}
	}
	return value
}

func (s *settings) access() kube.Options {
	return kube.Options{
		Kubeconfig: s.kubeconfig, Context: s.context, Environ: s.getenv,
		UserAgent: version.UserAgent(Name, "administrator"), QPS: -1,
	}
}

// cluster is the administrator's access to the cluster. Nothing is sent yet.
func (v *call) cluster() (*kube.Client, error) {
	c, err := kube.Dial(v.access())
	if errors.Is(err, kube.ErrNotConfigured) {
		return nil, fmt.Errorf("which cluster is it? give --kubeconfig FILE or set KUBECONFIG, as for kubectl")
	}
	return c, err
}

// address is where computes reach the API server, as far as flags say.
type address struct{ host, port string }

func (a *address) flags(f *pflag.FlagSet) {
	f.StringVar(&a.host, "kubernetes-service-host", "", "`HOST` by which computes reach the API server; otherwise the kubeconfig's")
	f.StringVar(&a.port, "kubernetes-service-port", "", "`PORT`, likewise")
}

// of adds what the kubeconfig says. An error of what was given is one of usage.
func (a *address) of(server string) (inventory.Address, error) {
	all, err := inventory.ForComputes(server, a.host, a.port)
	if err != nil && (a.host != "" || a.port != "") {
		return all, usagef("%v", err)
	}
	return all, err
}
