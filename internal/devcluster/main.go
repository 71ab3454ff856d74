// devkube is a small real Kubernetes control plane in one process:
// etcd (embedded), the generic control plane of kube-apiserver (CRDs, RBAC,
// namespaces, secrets, service accounts, aggregation) and the few controllers
// that a CRD-only cluster needs (service account tokens, default service
// accounts, root CA config map, namespace deletion, garbage collection).
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	clientcmdapi "k8s.io/client-go/tools/clientcmd"
	clientapi "k8s.io/client-go/tools/clientcmd/api"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	rootca "k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	nscontroller "k8s.io/kubernetes/pkg/controller/namespace"
	sacontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/samples/generic/server"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

const issuer = "https://kubernetes.default.svc"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "devkube:", err)
		os.Exit(1)
	}
}

type keyPair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func pemCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func pemKey(k *ecdsa.PrivateKey) []byte {
	b, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b})
}

func issue(ca *keyPair, tmpl x509.Certificate) (*keyPair, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	tmpl.NotBefore = time.Now().Add(-time.Hour)
	tmpl.NotAfter = time.Now().Add(10 * 365 * 24 * time.Hour)
	parent, signer := &tmpl, k
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, parent, &k.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	return &keyPair{c, k}, err
}

func run() error {
	dir := flag.String("dir", "", "state directory (required)")
	port := flag.Int("port", 0, "secure port on 127.0.0.1 (0: any free)")
	fsync := flag.Bool("fsync", false, "etcd fsync on")
	controllers := flag.Bool("controllers", true, "run the small set of controllers")
	crds := flag.String("crds", "", "directory with CRD manifests to install")
	verbose := flag.Int("v", 0, "klog verbosity")
	flag.Parse()
	if *dir == "" {
		return fmt.Errorf("--dir is required")
	}
	t0 := time.Now()
	d, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d, 0o700); err != nil {
		return err
	}
	kfs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(kfs)
	_ = kfs.Set("v", fmt.Sprint(*verbose))
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	p := func(n string) string { return filepath.Join(d, n) }
	ca, err := issue(nil, x509.Certificate{Subject: pkix.Name{CommonName: "devkube-ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature})
	if err != nil {
		return err
	}
	srv, err := issue(ca, x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}})
	if err != nil {
		return err
	}
	admin, err := issue(ca, x509.Certificate{Subject: pkix.Name{CommonName: "devkube-admin", Organization: []string{"system:masters"}}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return err
	}
	sa, err := issue(nil, x509.Certificate{Subject: pkix.Name{CommonName: "sa"}})
	if err != nil {
		return err
	}
	for n, b := range map[string][]byte{"ca.crt": pemCert(ca.cert), "server.crt": pemCert(srv.cert), "server.key": pemKey(srv.key), "sa.key": pemKey(sa.key)} {
		if err := os.WriteFile(p(n), b, 0o600); err != nil {
			return err
		}
	}

	// etcd on a unix socket in the private state directory: no TCP port.
	ec := embed.NewConfig()
	ec.Dir = p("etcd")
	ec.LogLevel = "error"
	ec.LogOutputs = []string{p("etcd.log")}
	ec.UnsafeNoFsync = !*fsync
	u := mustURL("unix://" + p("etcd.sock"))
	pu := mustURL("unix://" + p("etcd-peer.sock"))
	// Advertised URLs must be host:port; a single member never dials them.
	adv := mustURL("http://127.0.0.1:1")
	ec.ListenClientUrls, ec.AdvertiseClientUrls = u, adv
	ec.ListenPeerUrls, ec.AdvertisePeerUrls = pu, adv
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	e, err := embed.StartEtcd(ec)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	tEtcd := time.Since(t0)

	o := server.NewOptions()
	var fss cliflag.NamedFlagSets
	o.AddFlags(&fss)
	fs := pflag.NewFlagSet("devkube", pflag.ContinueOnError)
	for _, f := range fss.FlagSets {
		fs.AddFlagSet(f)
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	o.SecureServing.Listener = ln
	o.SecureServing.BindPort = ln.Addr().(*net.TCPAddr).Port
	o.SecureServing.ExternalAddress = net.IPv4(127, 0, 0, 1)
	if err := fs.Parse(append([]string{
		"--etcd-servers=unix://" + p("etcd.sock"),
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--tls-cert-file=" + p("server.crt"), "--tls-private-key-file=" + p("server.key"),
		"--client-ca-file=" + p("ca.crt"),
		"--authorization-mode=RBAC",
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + p("sa.key"),
		"--service-account-signing-key-file=" + p("sa.key"),
		"--profiling=false",
	}, flag.Args()...)); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	co, err := o.Complete(ctx, nil, nil)
	if err != nil {
		return err
	}
	if errs := co.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	cfg, err := server.NewConfig(co)
	if err != nil {
		return err
	}
	// The sample asks for 3 masters, which delays every new CRD by 5 s.
	cfg.APIExtensions.ExtraConfig.MasterCount = 1
	completed, err := cfg.Complete()
	if err != nil {
		return err
	}
	s, err := server.CreateServerChain(completed)
	if err != nil {
		return err
	}
	prepared, err := s.PrepareRun()
	if err != nil {
		return err
	}
	errCh := make(chan error, 1)
	go func() { errCh <- prepared.Run(ctx) }()

	base := fmt.Sprintf("https://127.0.0.1:%d", o.SecureServing.BindPort)
	rc := &rest.Config{Host: base, QPS: 1000, Burst: 2000, TLSClientConfig: rest.TLSClientConfig{CAData: pemCert(ca.cert), CertData: pemCert(admin.cert), KeyData: pemKey(admin.key)}}
	cs, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return err
	}
	for {
		ok := cs.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil
		if ok {
			if _, err := cs.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err == nil {
				break
			}
		}
		select {
		case err := <-errCh:
			return fmt.Errorf("apiserver ended: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	tReady := time.Since(t0)
	if *controllers {
		if err := startControllers(ctx, rc, cs, pemCert(ca.cert), p("sa.key")); err != nil {
			return err
		}
	}
	tCRD := time.Now()
	if *crds != "" {
		if err := installCRDs(ctx, rc, *crds); err != nil {
			return err
		}
	}
	dCRD := time.Since(tCRD)
	kc := clientapi.NewConfig()
	kc.Clusters["devkube"] = &clientapi.Cluster{Server: base, CertificateAuthorityData: pemCert(ca.cert)}
	kc.AuthInfos["admin"] = &clientapi.AuthInfo{ClientCertificateData: pemCert(admin.cert), ClientKeyData: pemKey(admin.key)}
	kc.Contexts["devkube"] = &clientapi.Context{Cluster: "devkube", AuthInfo: "admin"}
	kc.CurrentContext = "devkube"
	if err := clientcmdapi.WriteToFile(*kc, p("admin.kubeconfig.tmp")); err != nil {
		return err
	}
	// The kubeconfig appears only once the server is ready.
	if err := os.Rename(p("admin.kubeconfig.tmp"), p("admin.kubeconfig")); err != nil {
		return err
	}
	fmt.Printf("ready %s etcd=%.2fs ready=%.2fs crds=%.2fs all=%.2fs rss=%s pid=%d go=%s\n", base, tEtcd.Seconds(), tReady.Seconds(), dCRD.Seconds(), time.Since(t0).Seconds(), rss(), os.Getpid(), runtime.Version())
	select {
	case <-ctx.Done():
		stop()
		select {
		case err = <-errCh:
		case <-time.After(10 * time.Second):
			err = fmt.Errorf("apiserver did not stop in 10 s")
		}
	case err = <-errCh:
	}
	return err
}

func startControllers(ctx context.Context, rc *rest.Config, cs kubernetes.Interface, caPEM []byte, keyFile string) error {
	kb, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	blk, _ := pem.Decode(kb)
	key, err := x509.ParseECPrivateKey(blk.Bytes)
	if err != nil {
		return err
	}
	gen, err := serviceaccount.JWTTokenGenerator(serviceaccount.LegacyIssuer, key)
	if err != nil {
		return err
	}
	inf := informers.NewSharedInformerFactory(cs, 10*time.Minute)
	tc, err := sacontroller.NewTokensController(klog.FromContext(ctx), inf.Core().V1().ServiceAccounts(), inf.Core().V1().Secrets(), cs, sacontroller.TokensControllerOptions{TokenGenerator: gen, RootCA: caPEM})
	if err != nil {
		return err
	}
	sac, err := sacontroller.NewServiceAccountsController(klog.FromContext(ctx), inf.Core().V1().ServiceAccounts(), inf.Core().V1().Namespaces(), cs, sacontroller.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return err
	}
	pub, err := rootca.NewPublisher(inf.Core().V1().ConfigMaps(), inf.Core().V1().Namespaces(), cs, caPEM)
	if err != nil {
		return err
	}
	md, err := metadata.NewForConfig(rc)
	if err != nil {
		return err
	}
	nsc := nscontroller.NewNamespaceController(ctx, cs, md, cs.Discovery().ServerPreferredNamespacedResources, inf.Core().V1().Namespaces(), 5*time.Minute, v1.FinalizerKubernetes)
	started := make(chan struct{})
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(cs.Discovery()))
	mapper.Reset()
	mif := metadatainformer.NewSharedInformerFactory(md, 10*time.Minute)
	gc, err := garbagecollector.NewGarbageCollector(ctx, cs, md, mapper, garbagecollector.DefaultIgnoredResources(), informerfactory.NewInformerFactory(inf, mif), started)
	if err != nil {
		return err
	}
	inf.Start(ctx.Done())
	mif.Start(ctx.Done())
	close(started)
	go tc.Run(ctx, 2)
	go sac.Run(ctx, 1)
	go pub.Run(ctx, 1)
	go nsc.Run(ctx, 2)
	go gc.Run(ctx, 2, 30*time.Second)
	go gc.Sync(ctx, cs.Discovery(), 10*time.Second)
	return nil
}

func rss() string {
	b, _ := os.ReadFile("/proc/self/status")
	for _, l := range strings.Split(string(bytes.TrimSpace(b)), "\n") {
		if strings.HasPrefix(l, "VmRSS:") {
			return strings.Join(strings.Fields(l)[1:], "")
		}
	}
	return "?"
}

func mustURL(s string) []url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return []url.URL{*u}
}
