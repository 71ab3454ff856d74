package credentials

import (
	"context"
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Older are the accounts that a program had in older installations, newest first.
var Older = map[string][]inventory.Account{
	"clientmountd": {{Name: "dws-controller-manager", Namespace: "dws-system"}, {Name: "dws-operator-controller-manager", Namespace: "dws-operator-system"}},
	"nnf-dm":       {{Name: "nnf-dm-controller-manager", Namespace: "nnf-dm-system"}},
}

// account is what we read of a ServiceAccount.
type account struct {
	Secrets []struct {
		Name string `json:"name"`
	} `json:"secrets"`
}

// absent looks what there is instead of a Secret or an account, and says what to
// do. An administrator who may not look gets the plain answer.
func absent(ctx context.Context, admin *kube.Client, r Request) error {
	missing := fmt.Sprintf("there is no ServiceAccount %s", r.Account)
	var a account
	err := admin.Get(ctx, accounts, r.Account.Namespace, r.Account.Name, &a)
	if err == nil {
		for _, s := range a.Secrets {
			// Kubernetes before 1.24 made them, with names of its own.
			if strings.HasPrefix(s.Name, r.Account.Name+"-token-") {
				return fmt.Errorf("there is no Secret %s/%s, but the account has %q: add --secret %s", r.Account.Namespace, r.Secret, s.Name, s.Name)
			}
		}
		return fmt.Errorf("there is no Secret %s/%s with a token of the account: %s, or use --bound, which needs none", r.Account.Namespace, r.Secret, remedy(r.Program))
	}
	for _, old := range Older[r.Program] {
		if old != r.Account && admin.Get(ctx, accounts, old.Namespace, old.Name, nil) == nil {
			return fmt.Errorf("%s, but an older installation's %s: add --service-account %s --namespace %s, or %s", missing, old, old.Name, old.Namespace, remedy(r.Program))
		}
	}
	if !kube.IsNotFound(err) {
		return fmt.Errorf("there is no Secret %s/%s, and whether there is its account cannot be told: %w", r.Account.Namespace, r.Secret, err)
	}
	return fmt.Errorf("%s: is this the right cluster (%s)? otherwise %s", missing, admin.Address(), remedy(r.Program))
}
