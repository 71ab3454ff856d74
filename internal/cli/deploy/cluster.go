package deploy

import (
	"errors"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

func (v *call) access() kube.Options {
	return kube.Options{
		Kubeconfig: v.kubeconfig, Context: v.context, Environ: v.Getenv,
		UserAgent: version.UserAgent(Name, "administrator"), QPS: -1,
	}
}

// cluster is the administrator's access to the cluster. Nothing is sent yet.
func (v *call) cluster() (*kube.Client, error) {
	c, err := kube.Dial(v.access())
	if errors.Is(err, kube.ErrNotConfigured) {
		return nil, hint.Add(errors.New("no kubeconfig was found"), "give --kubeconfig FILE or set KUBECONFIG, as for kubectl")
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
		return all, usage.Errorf("%v", err)
	}
	return all, err
}
