"""Pictures per second of an architecture: python -m bench.trial_speed NAME BATCH THREADS STEPS."""
import sys, time, os
arch, bs, threads, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
os.environ["TF_NUM_INTRAOP_THREADS"]=str(threads); os.environ["TF_NUM_INTEROP_THREADS"]="1" 
from pipeline import config
from pipeline.data import faces
from pipeline.training import loop, backend
import numpy as np
backend.start("tensorflow") if hasattr(backend,"start") else None
s=config.load(); r=s.speedrun_recipe().model_copy(update={"batch_size":bs,"progressive_epochs":0,"precision":"bfloat16"})
from pipeline import architectures
import importlib
b=importlib.import_module(f"pipeline.architectures.{arch}").build
d=faces.load()
steps=n
t=loop.Trainer(b,d.pixels,r,1,steps)
rows=np.arange(bs*n); R=loop.Rows(rows, loop.one_hot(np.zeros(len(rows),"int64")), rows[:0], rows[:0])
t.train_epoch(loop.Rows(rows, R.targets, rows[:0], rows[:0]),1,0,lambda p:None)
for e in (1,2):
    a=time.perf_counter(); t.train_epoch(R,1,e,lambda p:None); print(arch,bs,threads,"%.1f pictures/s"%(bs*n/(time.perf_counter()-a)),flush=True)
