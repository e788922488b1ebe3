//go:build node

// Package node proves the installation inside a real cluster: etcd, the API server with all
// controllers, the scheduler, kube-proxy, containerd and a kubelet, all on this machine, with Pods
// that run. "make test-node" runs it; it needs Linux and root.
//
// The test binary prepares what needs a network (building servers and images), and then starts
// itself again as the first process of namespaces of its own for processes, mounts and the network.
// There the cluster is brought up. Its bridge, its iptables rules, its mounts and its processes are
// seen by nobody else, and the kernel takes them away with that process, however it ends. What else
// there is, a folder and the control groups, the first process removes.
package node
