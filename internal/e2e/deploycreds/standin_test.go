package deploycreds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/util/jsonpath"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// standIn is this program when it is called kubectl: what the documentation's
// script uses of it, for machines that have none. The jsonpath is kubectl's own.
func standIn() bool {
	if filepath.Base(os.Args[0]) != "kubectl" {
		return false
	}
	code, err := kubectl(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubectl stand-in:", err)
		code = 1
	}
	os.Exit(code)
	return true
}

func kubectl(args []string, out io.Writer) (code int, err error) {
	f := pflag.NewFlagSet("kubectl", pflag.ContinueOnError)
	config, ns, output, sub := f.String("kubeconfig", "", ""), f.StringP("namespace", "n", "", ""), f.StringP("output", "o", "", ""), f.String("subresource", "", "")
	duration := f.Duration("duration", time.Hour, "")
	for _, flag := range []string{"all-namespaces", "quiet", "minify"} {
		f.Bool(flag, false, "")
	}
	if err := f.Parse(args); err != nil {
		return 2, err
	}
	c, err := kube.Dial(kube.Options{Kubeconfig: *config})
	if err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var o map[string]any
	words := f.Args()
	switch command := strings.Join(words[:min(2, len(words))], " "); {
	case command == "get secret" && len(words) == 3, command == "get configmap" && len(words) == 3:
		err = c.Get(ctx, kube.Resource{Version: "v1", Plural: words[1] + "s", Kind: words[1]}, *ns, words[2], &o)
	case command == "config view":
		o = map[string]any{"clusters": []any{map[string]any{"cluster": map[string]any{"server": c.Address()}}}}
	case command == "create token" && len(words) == 3:
		ask := map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": int(duration.Seconds())}}
		err = c.CreateFor(ctx, kube.Resource{Version: "v1", Plural: "serviceaccounts", Kind: "ServiceAccount"}, *ns, words[2], "token", ask, &o)
		*output = "jsonpath={.status.token}"
	case command == "auth whoami":
		r := kube.Resource{Group: "authentication.k8s.io", Version: "v1", Plural: "selfsubjectreviews", Kind: "SelfSubjectReview"}
		err = c.Create(ctx, r, "", map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": r.Kind}, &o)
	case command == "auth can-i" && len(words) == 4:
		resource, group, _ := strings.Cut(words[3], ".")
		r := kube.Resource{Group: "authorization.k8s.io", Version: "v1", Plural: "selfsubjectaccessreviews", Kind: "SelfSubjectAccessReview"}
		err = c.Create(ctx, r, "", map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": r.Kind, "spec": map[string]any{"resourceAttributes": map[string]any{
			"verb": words[2], "group": group, "resource": resource, "subresource": *sub}}}, &o)
		if status, _ := o["status"].(map[string]any); err == nil && status["allowed"] != true {
			return 1, nil
		}
		*output = "jsonpath="
	default:
		err = fmt.Errorf("it does not know %q", args)
	}
	if err != nil {
		return 1, err
	}
	path, ok := strings.CutPrefix(*output, "jsonpath=")
	if !ok {
		return 1, errors.New("it needs -o jsonpath")
	}
	j := jsonpath.New("output")
	if err := j.Parse(path); err != nil {
		return 1, err
	}
	data, err := json.Marshal(o)
	if err == nil {
		var plain any
		if err = json.Unmarshal(data, &plain); err == nil {
			err = j.Execute(out, plain)
		}
	}
	return 0, err
}
