import sys; sys.path.insert(0,'.')
import numpy as np
from bench import ablation
from pipeline.data import faces
from pipeline.evaluation import limits, metrics
from pipeline.experiments import runner
d=faces.load(); t=ablation.plan(d)
R=runner.load_finished(d,t,ablation.FOLDER)
rows=t['baseline'].evaluated; y=d.labels[rows].astype(int); g=faces.picture_groups(d.pixels)[rows]
N="narrow_vgg, 50 epochs"
def P(n): return R[n].probabilities
first={n: np.load(f"{ablation.FOLDER}/{t[n].key(d)}.first.npy") for n in (N+", restarts", N+", restarts, another seed")}
def rec(a,b,w=None):
    out={}
    return out
sets={"none":[P(N),P(N+", another seed")],"gce":[P(N+", generalised"),P(N+", generalised, another seed")],
 "end2":[P(N+", restarts"),P(N+", restarts, another seed")],"end1":list(first.values())}
sets["chain"]=[ (a.astype('f8')+b)/2 for a,b in zip(sets["end1"],sets["end2"])]
for n in (N,N+", generalised",N+", restarts"): print(n, [ (float(R[m].accuracy), float(R[m].seconds)/60) for m in (n,n+", another seed")])
T={k:limits.tempered(v,y) for k,v in sets.items()}
base=None
for k,v in T.items():
    pr=limits.products(v,y)
    single=pr[:,[0,1],[0,1]].mean(1); common=pr[:,0,1]
    acc=np.mean([metrics.right(x,y).mean() for x in v])
    if base is None: base=(single,common,np.mean([metrics.right(x,y) for x in v],0))
    def iv(x): 
        b=limits.bootstrap(x[:,None],g)[:,0]; return "%.4f (%.4f %.4f)"%(x.mean(),*limits.interval_95(b))
    print(k,"acc %.4f"%acc, iv(np.mean([metrics.right(x,y) for x in v],0)-base[2]),"single",iv(single),"diff",iv(single-base[0]),"Binf",iv(common),"diff",iv(common-base[1]), "accmean %.4f"%metrics.right(v[0]+v[1],y).mean())
def common(a,b): return limits.products([a,b],y)[:,0,1]
for a in T:
  for b in T:
    if a<b:
      x=common(T[a][0],T[b][0]); z=common(T[a][1],T[b][1]); print(a,b,"same seed %.4f %.4f"%(x.mean(),z.mean()), "cross %.4f %.4f"%(common(T[a][0],T[b][1]).mean(),common(T[a][1],T[b][0]).mean()))
