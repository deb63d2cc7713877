# Which faults there are depends on the seed: netplug lab hint names them one by one.
