// Command controllers runs those controllers of Kubernetes that the tests and the demo rely on:
// workloads, namespaces, service accounts, quotas, disruption budgets and the garbage collector.
// kube-controller-manager runs the same ones. It takes longer to build, because it links the
// scheduler and a good part of the kubelet besides.
//
// One thing differs: the garbage collector and the quotas look for new kinds every second here,
// and every 30 seconds there.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
)

const (
	resync  = 12 * time.Hour
	relearn = time.Second // how often the garbage collector and the quotas look for new kinds
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of a kubeconfig with the administrator's credentials")
	rootCA := flag.String("root-ca-file", "", "path of the CA that is published into every namespace")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *kubeconfig, *rootCA)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// cluster is what controllers are made from. Its clients have no rate limit.
type cluster struct {
	client    kubernetes.Interface
	discovery discovery.DiscoveryInterface
	metadata  metadata.Interface
	config    *rest.Config
	mapper    meta.ResettableRESTMapper
	informers informers.SharedInformerFactory
	// all makes informers for any kind. For kinds that are not built in they hold metadata only.
	all informerfactory.InformerFactory
	// started is closed once all informers are.
	started chan struct{}
	rootCA  []byte
}

// run runs the controllers until the context ends.
func run(ctx context.Context, kubeconfig, rootCAFile string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("reading --kubeconfig: %w", err)
	}
	config.QPS, config.UserAgent = -1, "kube-controller-manager" // the name in managedFields
	c, err := newCluster(config)
	if err != nil {
		return err
	}
	if c.rootCA, err = os.ReadFile(rootCAFile); err != nil {
		return fmt.Errorf("reading --root-ca-file: %w", err)
	}
	var loops []loop
	for _, part := range []func(context.Context) ([]loop, error){
		c.workloads, c.batch, c.namespaces, c.disruption, c.quotas, c.garbage,
	} {
		made, err := part(ctx)
		if err != nil {
			return err
		}
		loops = append(loops, made...)
	}
	c.informers.Start(ctx.Done())
	c.all.Start(ctx.Done())
	close(c.started)
	go wait.Until(c.mapper.Reset, 30*time.Second, ctx.Done())
	var running wait.Group
	for _, run := range loops {
		running.StartWithContext(ctx, run)
	}
	klog.FromContext(ctx).Info("Started controllers", "loops", len(loops))
	running.Wait()
	return nil
}

// loop is what a controller does until the context ends.
type loop = func(context.Context)

func newCluster(config *rest.Config) (*cluster, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client of metadata: %w", err)
	}
	shared := informers.NewSharedInformerFactory(client, resync)
	return &cluster{
		client:    client,
		discovery: client.Discovery(),
		metadata:  objects,
		config:    config,
		mapper:    restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		informers: shared,
		all: informerfactory.NewInformerFactory(shared,
			metadatainformer.NewSharedInformerFactory(objects, resync)),
		started: make(chan struct{}),
	}, nil
}
